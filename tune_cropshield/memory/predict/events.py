"""What a training window allocates and frees, in order, and how that grows with the batch.

An event is (slot, bytes): slot was allocated with so many bytes, or freed where bytes is FREED. Slots count up from 0
within one trace. In a trace, scratch space stands by what it follows from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune_cropshield.errors import EstimateUnavailable
from tune_cropshield.memory.predict.scratch import Scratch, scratch_at

Event = tuple[int, int]
TracedEvent = tuple[int, int | Scratch]
FREED = -1
BLOCK = 512  # bytes: PyTorch's CUDA allocator rounds every request up to a multiple of it


@dataclass(frozen=True)
class Window:
    """The events of a window, in order.

    first: the first micro-step. further: any further one, with gradients already there. release: dropping the
    gradients.
    """

    first: tuple[TracedEvent, ...]
    further: tuple[TracedEvent, ...]
    release: tuple[TracedEvent, ...]
    cast_cache_bytes: int  # half-precision copies of the weights
    matrix_products: bool  # whether there is one: not in a network of convolutions alone

    def events(self, several: bool) -> tuple[TracedEvent, ...]:
        """Returns all events of a window of one micro-step, or of several."""
        return self.first + (self.further if several else ()) + self.release


@dataclass(frozen=True)
class Events:
    """Allocations and frees in order, each of `fixed + per_image * batch` bytes (0 for a free).

    batches: the images in a micro-batch at which they were traced. scratch: position among the events -> scratch space
    at each of `batches`. num_released: how many events at the end drop the gradients.
    """

    batches: tuple[int, int]
    slots: tuple[int, ...]
    fixed: NDArray[np.int64]
    per_image: NDArray[np.float64]
    frees: NDArray[np.bool_]
    scratch: dict[int, tuple[Scratch, Scratch]]
    num_released: int

    @classmethod
    def through(cls, small: Window, large: Window, batches: tuple[int, int], several: bool) -> Events:
        """Returns the events whose sizes pass through both traces.

        Args:
            small: the trace at the first of `batches`.
            large: the trace at the second.
            batches: images in a micro-batch.
            several: the window has several micro-steps.

        Raises:
            EstimateUnavailable: more than sizes differ between the traces.
        """
        first, second = small.events(several), large.events(several)
        if [(slot, size == FREED) for slot, size in first] != [(slot, size == FREED) for slot, size in second]:
            raise EstimateUnavailable(
                f"the model works differently at batch {batches[0]} and {batches[1]}: no line goes through both"
            )
        scratch = {
            position: (low, high)
            for position, ((_, low), (_, high)) in enumerate(zip(first, second, strict=True))
            if isinstance(low, Scratch) and isinstance(high, Scratch)
        }
        low, high = (
            np.array([0 if isinstance(size, Scratch) else size for _, size in events], dtype=np.int64)
            for events in (first, second)
        )
        per_image = (high - low) / (batches[1] - batches[0])
        return cls(
            batches,
            tuple(slot for slot, _ in first),
            np.rint(low - per_image * batches[0]).astype(np.int64),
            per_image,
            low == FREED,
            scratch,
            len(small.release),
        )

    def sizes(self, batch: int) -> NDArray[np.int64]:
        """Returns the bytes of each event, rounded up to the allocator's blocks."""
        exact = self.fixed + self.per_image * batch
        for position, (small, large) in self.scratch.items():
            exact[position] = scratch_at(batch, self.batches, small, large).num_bytes()
        sizes = np.ceil(exact / BLOCK).astype(np.int64) * BLOCK
        return np.where(self.frees, 0, np.maximum(sizes, BLOCK))

    def at(self, batch: int) -> tuple[list[Event], list[Event]]:
        """Returns the events at one batch size: those of the micro-steps, and those that drop the gradients."""
        events = [
            (slot, FREED if free else size)
            for slot, size, free in zip(self.slots, self.sizes(batch).tolist(), self.frees.tolist(), strict=True)
        ]
        end = len(events) - self.num_released
        return events[:end], events[end:]

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
