"""Which GPUs and cores there are. Everyone asks here.

A GPU is described by its driver, asked without becoming one of its users: a CUDA context of our own would take half a
GiB. PyTorch is imported only by the functions that need it: it takes seconds.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from tune_cropshield.config.units import MIB
from tune_cropshield.errors import DeviceError


@dataclass(frozen=True)
class Card:
    """One GPU, now."""

    name: str
    driver: str
    total_mib: float
    free_mib: float  # less than total by what the driver, the desktop and all programs hold


def find_device(wanted: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """Returns the device to train on: for "auto" a GPU where there is one.

    Raises:
        DeviceError: a GPU is asked for, and there is none that this PyTorch can use.
    """
    if wanted == "cpu" or (wanted == "auto" and not gpus_free_mib()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if wanted == "cuda":
        built = (
            "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no NVIDIA GPU or driver"
        )
        raise DeviceError(f"--device cuda: {built}; use --device cpu, or auto")
    return "cpu"


def num_cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Returns what the processor calls itself, as "AMD EPYC 7B13"; "cpu" where the system does not say."""
    with suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "cpu"


def num_gpus() -> int:
    """Returns how many GPUs this PyTorch can use; 0 without one."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def find_card() -> Card | None:
    """Returns the visible GPU with the least free memory, as trials may land on any; None where torch sees no GPU.

    Without NVML (nvidia-ml-py) CUDA is asked instead, which costs this process a context; the driver is then "unknown".
    """
    with _nvml() as nvml:
        cards = [
            _card_from_nvml(nvml, index) if nvml is not None else _card_from_cuda(index) for index in range(num_gpus())
        ]
    return min(cards, key=lambda card: card.free_mib, default=None)


def gpus_free_mib() -> list[float]:
    """Returns the free memory, in MiB, of each GPU that NVIDIA's driver shows; none without a driver.

    Takes milliseconds: PyTorch is not loaded for it.
    """
    with _nvml() as nvml:
        if nvml is None:
            return []
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return [float(nvml.nvmlDeviceGetMemoryInfo(handle).free) / MIB for handle in handles]


def used_mib(index: int) -> float | None:
    """Returns what all programs together hold on PyTorch's GPU `index`, in MiB; None without NVML."""
    with _nvml() as nvml:
        return float(nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, index)).used) / MIB if nvml is not None else None


@contextmanager
def _nvml() -> Iterator[ModuleType | None]:
    """Yields NVML, ready for use, or None where it is not installed or does not work.

    It does not without a driver, or on some virtual machines.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # pynvml's errors have no common base before 12, and a broken library raises OSError
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _handle(nvml: ModuleType, index: int) -> object:
    """Returns NVML's handle of PyTorch's GPU `index`."""
    from tune_cropshield import torch_private

    return nvml.nvmlDeviceGetHandleByIndex(torch_private.nvml_index(index))


def _card_from_nvml(nvml: ModuleType, index: int) -> Card:
    handle = _handle(nvml, index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Card(
        _text(nvml.nvmlDeviceGetName(handle)),
        _text(nvml.nvmlSystemGetDriverVersion()),
        memory.total / MIB,
        memory.free / MIB,
    )


def _card_from_cuda(index: int) -> Card:
    import torch

    free, total = torch.cuda.mem_get_info(index)
    return Card(torch.cuda.get_device_name(index), "unknown", total / MIB, free / MIB)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
