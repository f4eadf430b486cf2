"""What a Ray worker does before its first trial is there: it loads what every trial needs."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tune_cropshield.config import TrialConfig
from tune_cropshield.model_names import OWN_MODELS
from tune_cropshield.no_compiler import import_without_compiler

# Loaded by a trial's first epoch only, and slow.
LATER = ("tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.event_file_writer", "safetensors.numpy")
NUM_CLASSES = 2  # not known yet; kernels but the last layer's do not depend on it


@dataclass(frozen=True)
class WarmUp:
    """modules: to import beside what every trial needs. trial: its step is run once on the GPU, at its micro-batch: a process's context, its
    libraries and kernels take seconds to load, and some wait for the disk while the imports keep Python busy."""

    modules: tuple[str, ...] = ()
    trial: TrialConfig | None = None

    def run(self) -> None:
        """Does it, in this process. What fails is printed, and fails again in the trial, which says so: Ray would take it for its own.

        Until a trial is set up, garbage is not collected (see `collector.resting`).
        """
        gc.disable()
        if self.trial is None:
            self._import()
        else:
            threading.Thread(target=make_context, name="context", daemon=True).start()
            with suppress_and_print():
                self._step_once(self.trial)

    def _import(self) -> None:
        with suppress_and_print():
            for name in ("tune_cropshield.search.worker", *LATER, *self.modules):
                import_without_compiler(name)

    def _step_once(self, trial: TrialConfig) -> None:
        import torch

        from tune_cropshield.memory.measured_step import measure

        others = threading.Thread(target=self._import, name="imports")  # after PyTorch's, which two threads had better not import at once
        others.start()
        threading.Thread(target=prepare_kernels, args=(trial,), name="kernels", daemon=True).start()
        if torch.cuda.device_count() == 1:  # of several, Ray has not yet said which one
            # In this thread, which will train: cuDNN keeps its choice of kernels for each thread.
            measure(trial, NUM_CLASSES, trial.pair[0], torch.device("cuda", 0), 0.0, warm_up=1, timed=1)
        others.join()


def make_context() -> None:
    """Has the driver make this process's context on the first GPU, which PyTorch then takes: seconds that need not follow those of the imports.

    Source: https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__PRIMARY__CTX.html. Where it fails, PyTorch makes the context later.
    """
    with suppress(OSError):
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        context = ctypes.c_void_p()
        if driver.cuInit(0) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)


def prepare_kernels(trial: TrialConfig) -> None:
    """Has our own kernels compiled while torchvision is imported. Where that fails, the trial says so."""
    import torch

    from tune_cropshield.training.build import takes_own_kernels
    from tune_cropshield.training.cuda_source import KernelsUnavailable
    from tune_cropshield.training.depthwise import source
    from tune_cropshield.training.precision import DTYPES, resolve_precision

    with suppress_and_print(), suppress(KernelsUnavailable):
        device = torch.device("cuda", 0)
        precision = resolve_precision(trial.precision, device)
        if torch.cuda.is_available() and trial.model not in OWN_MODELS and takes_own_kernels(trial, precision, device):
            source(DTYPES[precision]).compile(torch.cuda.get_device_capability(device))


@contextmanager
def suppress_and_print() -> Iterator[None]:
    """Prints what the block raises, into the process's log."""
    try:
        yield
    except Exception:
        traceback.print_exc()
