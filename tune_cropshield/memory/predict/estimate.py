"""The peak GPU memory of a training window, for any classifier, without a GPU and in seconds.

Two traces of the window at small batches give every allocation as fixed + per_image x batch; from these the peak at any
batch follows exactly, no curve is fitted. Reserved memory, which is what must fit, comes from replaying the same events
through a model of PyTorch's caching allocator.

Against an H200 (EfficientNet-B0, ResNet-50 and the guide's CNN, 8 to 256 images of 224 px):
`benchmarks/estimate_vs_measured.py`.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tune_cropshield.config.model_names import OWN_MODELS, check_model_name
from tune_cropshield.config.settings import Precision
from tune_cropshield.memory.predict.allocator import BLOCK, CachingAllocator
from tune_cropshield.memory.predict.trace import FREED, EstimateUnavailable, Event, meta_copy, trace_window
from tune_cropshield.training.models import build_model

__all__ = ["CONTEXT_MIB", "LIBRARIES_MIB", "EstimateUnavailable", "MemoryEstimate", "estimate_memory"]

MIB = 2**20
OptimizerName = Literal["adamw", "sgd"]

# The driver's context with PyTorch's kernels, cuBLAS and cuDNN loaded: outside the allocator, so outside every figure
# below. 0.4 to 0.6 GiB are usual; not measured by us.
CONTEXT_MIB = 500.0
# cuBLAS keeps one workspace for the forward and one for the backward thread, inside the allocator: 32 MiB each on
# Hopper, 8.1 MiB on laptop cards (there we err high by 48 MiB).
CUBLAS_WORKSPACES = (32 * MIB, 32 * MIB)
LIBRARIES_MIB = sum(CUBLAS_WORKSPACES) / MIB
# Beside what the replay finds: cuDNN may try other kernels in the first steps, whose scratch space stays cached. The
# plain replay is 3 % too low to 6 % too high for the channels_last rows measured, so this leaves it at most a little
# low.
RESERVED_ALLOWANCE = 1.03
# Without channels_last cuDNN copies wide feature maps to another layout in scratch space: 0 % more than the replay
# (ResNet-50) to 31 % (custom CNN) were measured. We take the worst.
RESERVED_ALLOWANCE_CONTIGUOUS = 1.31
# Traced batches: small ones cost no less than large ones, and two points make a line.
TRACED_BATCHES = (8, 16)
# Slopes are read between these two, where the peak has settled at one moment of the window.
SLOPE_BATCHES = (256, 512)
# Far above any GPU's memory at any image size worth training on.
LARGEST_BATCH_TRIED = 65_536


@dataclass(frozen=True)
class Events:
    """Allocations and frees in order, each of `fixed + per_image * batch` bytes (0 for a free)."""

    slots: tuple[int, ...]
    fixed: NDArray[np.int64]
    per_image: NDArray[np.float64]
    frees: NDArray[np.bool_]

    @classmethod
    def through(cls, small: Sequence[Event], large: Sequence[Event], batches: tuple[int, int]) -> Events:
        """Returns the events whose sizes pass through both traces; raises EstimateUnavailable where more than sizes
        differ.
        """
        if [(slot, size == FREED) for slot, size in small] != [(slot, size == FREED) for slot, size in large]:
            raise EstimateUnavailable(
                f"the model works differently at batch {batches[0]} and {batches[1]}: no line goes through both"
            )
        low, high = (np.array([size for _, size in events], dtype=np.int64) for events in (small, large))
        per_image = (high - low) / (batches[1] - batches[0])
        return cls(
            tuple(slot for slot, _ in small),
            np.rint(low - per_image * batches[0]).astype(np.int64),
            per_image,
            low == FREED,
        )

    def sizes(self, batch: int) -> NDArray[np.int64]:
        """Returns the bytes of each event, rounded up to the allocator's blocks."""
        sizes = np.ceil((self.fixed + self.per_image * batch) / BLOCK).astype(np.int64) * BLOCK
        return np.where(self.frees, 0, np.maximum(sizes, BLOCK))

    def at(self, batch: int) -> Iterator[Event]:
        """Yields the events at one batch size."""
        for slot, size, free in zip(self.slots, self.sizes(batch).tolist(), self.frees.tolist(), strict=True):
            yield slot, FREED if free else size

    def peak(self, batch: int) -> int:
        """Returns the most bytes alive at any moment."""
        allocated: dict[int, int] = {}
        changes = self.sizes(batch).tolist()
        for position, (slot, free) in enumerate(zip(self.slots, self.frees.tolist(), strict=True)):
            if free:
                changes[position] = -allocated.pop(slot)
            else:
                allocated[slot] = changes[position]
        return int(np.cumsum(changes).max(initial=0))


@dataclass(frozen=True)
class MemoryEstimate:
    """What a training window needs, in MiB of PyTorch's allocator: add CONTEXT_MIB for what the driver shows.

    fixed_mib: what lies on the GPU whatever the batch: weights, buffers, optimizer state, half-precision copies of the
    weights and cuBLAS workspaces; gradients come on top with accumulation. per_image_mib: what one more image adds at
    large batches.
    """

    weights_mib: float
    gradients_mib: float
    optimizer_mib: float
    cast_cache_mib: float
    buffers_mib: float
    per_image_mib: float
    image_bytes: int  # one image on the GPU: fp32, and whatever the caller keeps beside it
    reserved_allowance: float  # factor for scratch space that cuDNN's search for kernels leaves cached
    resident: tuple[int, ...] = field(repr=False)  # bytes of each weight and buffer
    optimizer_state: tuple[int, ...] = field(repr=False)
    one_micro_step: Events = field(repr=False, compare=False)
    several_micro_steps: Events = field(repr=False, compare=False)
    least_peak_mib: float = (
        0.0  # what the caller's step holds at once beside activations, where that is more than this step does
    )

    @property
    def fixed_mib(self) -> float:
        return self.weights_mib + self.buffers_mib + self.optimizer_mib + self.cast_cache_mib + LIBRARIES_MIB

    def peak_allocated_mib(self, micro_batch: int, accumulation: int = 1) -> float:
        """Returns what `torch.cuda.max_memory_allocated` will say of a window whose optimizer state already exists."""
        return max(
            (self._always(micro_batch) + self._window(accumulation).peak(micro_batch)) / MIB, self.least_peak_mib
        )

    def peak_reserved_mib(self, micro_batch: int, accumulation: int = 1) -> float:
        """Returns what `torch.cuda.max_memory_reserved` will say.

        Two windows go through the allocator, the optimizer state born between them; an allowance covers what cuDNN
        leaves cached.
        """
        window = list(self._window(accumulation).at(micro_batch))
        allocator = self._allocator(micro_batch)
        allocator.replay(window)
        for position, size in enumerate(self.optimizer_state):
            allocator.allocate(("optimizer", position), size)
        allocator.replay(window)
        return max(allocator.reserved / MIB, self.least_peak_mib) * self.reserved_allowance

    def largest_micro_batch(self, budget_mib: float, accumulation: int = 1, at_most: int = LARGEST_BATCH_TRIED) -> int:
        """Returns the largest micro-batch up to `at_most` whose reserved peak fits `budget_mib`, 0 when not even 1
        does.

        The budget is the allocator's: the GPU's memory less CONTEXT_MIB and other programs.
        """

        def fitting(batch: int) -> bool:
            return (
                self.peak_allocated_mib(batch, accumulation) <= budget_mib
                and self.peak_reserved_mib(batch, accumulation) <= budget_mib
            )

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

    def _window(self, accumulation: int) -> Events:
        return self.one_micro_step if accumulation == 1 else self.several_micro_steps

    def _always(self, batch: int) -> int:
        return sum(self.resident) + sum(self.optimizer_state) + sum(CUBLAS_WORKSPACES) + self.image_bytes * batch

    def _allocator(self, batch: int) -> CachingAllocator:
        allocator = CachingAllocator()
        for position, size in enumerate((*self.resident, *CUBLAS_WORKSPACES, self.image_bytes * batch)):
            allocator.allocate(("resident", position), size)
        return allocator


@functools.lru_cache(maxsize=8)  # a trace takes seconds, and a plan is made in several steps
def estimate_memory(
    model_name: str,
    num_classes: int,
    image_size: int,
    precision: Precision,
    optimizer: OptimizerName = "adamw",
    channels_last: bool = True,
    freeze_backbone: bool = False,
    momentum: float = 0.9,
    input_bytes_per_image: int = 0,
) -> MemoryEstimate:
    """Returns the memory that training `model_name` needs, as a function of micro-batch and accumulation.

    The step: fp32 images on the GPU, autocast forward, summed cross-entropy, backward of the scaled loss, unscale, clip
    by norm, fused optimizer step, zero_grad(set_to_none=True). input_bytes_per_image: what lies on the GPU beside the
    fp32 image, such as the uint8 image it came from. Raises EstimateUnavailable for a model that cannot be traced,
    ConfigError for an unknown name.
    """
    check_model_name(model_name)
    if model_name not in OWN_MODELS:
        importlib.import_module(
            "torchvision.models"
        )  # here, for what it makes when imported must not end up on the meta device
    model = meta_copy(partial(build_model, model_name, num_classes, freeze_backbone=freeze_backbone), channels_last)
    weights = [parameter.nbytes for parameter in model.parameters()]
    buffers = [buffer.nbytes for buffer in model.buffers()]
    trainable = [parameter.nbytes for parameter in model.parameters() if parameter.requires_grad]
    state = {"adamw": [size for size in trainable for _ in range(2)], "sgd": trainable if momentum else []}[optimizer]

    settings = (image_size, precision, channels_last)
    small, large = (trace_window(model, batch, *settings) for batch in TRACED_BATCHES)
    one = Events.through(small.first + small.release, large.first + large.release, TRACED_BATCHES)
    several = Events.through(
        small.first + small.further + small.release, large.first + large.further + large.release, TRACED_BATCHES
    )
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
        per_image_mib=slope_mib(several),
        image_bytes=image_bytes,
        reserved_allowance=RESERVED_ALLOWANCE if channels_last else RESERVED_ALLOWANCE_CONTIGUOUS,
        resident=(*weights, *buffers),
        optimizer_state=tuple(state),
        one_micro_step=one,
        several_micro_steps=several,
    )
