"""The peak GPU memory of a training window, for any classifier, without a GPU and in seconds.

Two traces of the window at small batches give every allocation as fixed + per_image x batch; from these the peak at any
batch follows exactly, no curve is fitted. Reserved memory, which is what must fit, comes from replaying the same events
through a model of PyTorch's caching allocator. The driver's context comes on top (see choose/budget.py).

How well that meets an H200, on networks that no constant was set by, stands in
results/memory_estimate_h200_2026-11; `benchmarks/estimate_vs_measured.py` makes the table.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from tune_cropshield.config.model_names import check_model_name, is_torchvisions
from tune_cropshield.config.registry import resolve
from tune_cropshield.config.settings import Precision
from tune_cropshield.config.timm_names import is_timms
from tune_cropshield.config.units import MIB
from tune_cropshield.errors import EstimateUnavailable
from tune_cropshield.memory.predict.allocator import CachingAllocator
from tune_cropshield.memory.predict.events import Events, Window
from tune_cropshield.training.losses import SampleLoss
from tune_cropshield.training.models import build_model

# Where there is a matrix product, cuBLAS keeps one workspace for the forward and one for the backward thread, inside
# the allocator: 32 MiB each on Hopper, 8.1 MiB on laptop cards (there we err high by 48 MiB).
CUBLAS_WORKSPACES = (32 * MIB, 32 * MIB)
# Reserved memory has settled after so many windows: blocks are cut otherwise once the optimizer's state lies there.
WINDOWS_UNTIL_SETTLED = 3
# Traced batches: small ones cost no less than large ones, and two points make a line.
TRACED_BATCHES = (8, 16)
# Slopes are read between these two, where the peak has settled at one moment of the window.
SLOPE_BATCHES = (256, 512)
# Far above any GPU's memory at any image size worth training on.
LARGEST_BATCH_TRIED = 65_536


@dataclass(frozen=True)
class MemoryEstimate:
    """What a training window needs of PyTorch's allocator."""

    weights_mib: float
    gradients_mib: float
    optimizer_mib: float
    cast_cache_mib: float  # half-precision copies of the weights
    buffers_mib: float
    average_mib: float  # an exponential moving average of weights and buffers; 0 without one
    per_image_mib: float  # what one more image adds at large batches
    image_bytes: int  # one image on the GPU: fp32, and whatever the caller keeps beside it
    library_workspaces: tuple[int, ...]  # bytes, kept by cuBLAS
    resident: tuple[int, ...] = field(repr=False)  # bytes of each weight and buffer, and of their averages
    optimizer_state: tuple[int, ...] = field(repr=False)
    one_micro_step: Events = field(repr=False, compare=False)
    several_micro_steps: Events = field(repr=False, compare=False)
    # What the caller's step holds at once beside activations, where that is more than this step does.
    least_peak_mib: float = 0.0

    @property
    def fixed_mib(self) -> float:
        """What lies on the GPU whatever the batch.

        That is: weights, buffers, their average, optimizer state, half-precision copies of the weights and cuBLAS's
        workspaces. Gradients come on top with accumulation.
        """
        kept = self.weights_mib + self.buffers_mib + self.average_mib + self.optimizer_mib
        return kept + self.cast_cache_mib + sum(self.library_workspaces) / MIB

    def peak_allocated_mib(self, micro_batch: int, accumulation: int = 1) -> float:
        """Returns what `torch.cuda.max_memory_allocated` will say."""
        return max(self._replayed(micro_batch, accumulation).peak_allocated / MIB, self.least_peak_mib)

    def peak_reserved_mib(self, micro_batch: int, accumulation: int = 1) -> float:
        """Returns what `torch.cuda.max_memory_reserved` will say."""
        return max(self._replayed(micro_batch, accumulation).reserved / MIB, self.least_peak_mib)

    def largest_micro_batch(self, budget_mib: float, accumulation: int = 1, at_most: int = LARGEST_BATCH_TRIED) -> int:
        """Returns the largest micro-batch up to `at_most` whose reserved peak fits `budget_mib`.

        It is 0 when not even 1 does.

        The budget is the allocator's: the GPU's memory less the driver's context and other programs.
        """

        def fitting(batch: int) -> bool:
            return self.peak_reserved_mib(batch, accumulation) <= budget_mib

        if fitting(at_most):
            return at_most
        fits, too_large = 0, at_most
        while too_large - fits > 1:
            middle = (fits + too_large) // 2
            if fitting(middle):
                fits = middle
            else:
                too_large = middle
        return fits

    def _replayed(self, batch: int, accumulation: int) -> CachingAllocator:
        """Returns the allocator after some windows; the optimizer's state is born in the first, beside the gradients.

        Both its figures count what PyTorch counts: a block that is larger than what was asked for counts as a whole.
        """
        window, release = (self.one_micro_step if accumulation == 1 else self.several_micro_steps).at(batch)
        allocator = CachingAllocator()
        always = (*self.resident, self.image_bytes * batch, *self.library_workspaces)
        for position, size in enumerate(always):
            allocator.allocate(("always", position), size)
        for number in range(WINDOWS_UNTIL_SETTLED):
            allocator.replay(window)
            for position, size in enumerate(self.optimizer_state if number == 0 else ()):
                allocator.allocate(("optimizer", position), size)
            allocator.replay(release)
        return allocator


@functools.lru_cache(maxsize=8)  # a trace takes seconds, and a plan is made in several steps
def estimate_memory(
    model_name: str,
    num_classes: int,
    image_size: int,
    precision: Precision,
    optimizer: str = "adamw",
    channels_last: bool = True,
    freeze_backbone: bool = False,
    momentum: float = 0.9,
    input_bytes_per_image: int = 0,
    ema: bool = False,
    head: str | None = None,
    loss: str = "cross_entropy",
) -> MemoryEstimate:
    """Returns the memory that training `model_name` needs, as a function of micro-batch and accumulation.

    The step: fp32 images on the GPU, autocast forward, summed loss, backward of the scaled loss, unscale, clip
    by norm, fused optimizer step, zero_grad(set_to_none=True).

    Args:
        model_name: as in a trial's settings.
        num_classes: outputs of the network.
        image_size: px, square.
        precision: of the forward pass.
        optimizer: "adamw" or "sgd": of others it is not known what they keep.
        channels_last: the layout of weights and images.
        freeze_backbone: only the head is trained.
        momentum: of sgd; 0 keeps no state.
        input_bytes_per_image: what lies on the GPU beside the fp32 image, such as the uint8 picture it came from.
        ema: an average of the weights is kept, in a copy of the network; moving it takes no memory.
        head: the network's last layer, as in a trial's settings.
        loss: as in a trial's settings.

    Raises:
        EstimateUnavailable: the model cannot be traced, or not with this PyTorch.
        ConfigError: there is no such model.
    """
    check_model_name(model_name)
    # What a module makes when it is imported must not end up on the meta device: imported here, before.
    if is_torchvisions(model_name):
        importlib.import_module("torchvision.models")
    elif is_timms(model_name):
        importlib.import_module("timm")
    else:
        resolve("model", model_name)
    build = partial(
        build_model, model_name, num_classes, freeze_backbone=freeze_backbone, head=head, image_size=image_size
    )
    model, small, large = _traced(build, resolve("loss", loss)(None, 0.0), image_size, precision, channels_last)
    weights = [parameter.nbytes for parameter in model.parameters()]
    buffers = [buffer.nbytes for buffer in model.buffers()]
    trainable = [parameter.nbytes for parameter in model.parameters() if parameter.requires_grad]
    average = [*weights, *buffers] if ema else []
    state = _optimizer_state(optimizer, momentum, trainable)

    one, several = (Events.through(small, large, TRACED_BATCHES, several) for several in (False, True))
    image_bytes = 3 * image_size**2 * 4 + input_bytes_per_image

    def slope_mib(events: Events) -> float:
        low, high = SLOPE_BATCHES
        return ((events.peak(high) - events.peak(low)) / (high - low) + image_bytes) / MIB

    return MemoryEstimate(
        weights_mib=sum(weights) / MIB,
        gradients_mib=sum(trainable) / MIB,
        optimizer_mib=sum(state) / MIB,
        cast_cache_mib=small.cast_cache_bytes / MIB,
        buffers_mib=sum(buffers) / MIB,
        average_mib=sum(average) / MIB,
        per_image_mib=slope_mib(several),
        image_bytes=image_bytes,
        library_workspaces=CUBLAS_WORKSPACES if small.matrix_products else (),
        resident=(*weights, *buffers, *average),
        optimizer_state=tuple(state),
        one_micro_step=one,
        several_micro_steps=several,
    )


def _traced(
    build: Callable[[], nn.Module], loss: SampleLoss, image_size: int, precision: Precision, channels_last: bool
) -> tuple[nn.Module, Window, Window]:
    """Returns the model on the meta device, and its traces at both of TRACED_BATCHES."""
    try:
        # Here and not above: tracing stands on undocumented parts of PyTorch, and nothing else may fail for want of
        # one.
        from tune_cropshield.memory.predict.trace import meta_copy, trace_window
    except (ImportError, AttributeError) as error:
        raise EstimateUnavailable(
            f"memory cannot be estimated with PyTorch {torch.__version__}, which lacks what tracing needs: {error}"
        ) from error
    model = meta_copy(build, channels_last)
    small, large = (trace_window(model, batch, image_size, precision, channels_last, loss) for batch in TRACED_BATCHES)
    return model, small, large


def _optimizer_state(optimizer: str, momentum: float, trainable: Sequence[int]) -> list[int]:
    """Returns the bytes of each tensor that the optimizer keeps for trained weights of `trainable` bytes."""
    copies = {"adamw": 2, "sgd": 1 if momentum else 0}
    if optimizer not in copies:
        raise EstimateUnavailable(f"how much memory optimizer {optimizer!r} takes for its state is not known")
    return [num_bytes for num_bytes in trainable for _ in range(copies[optimizer])]
