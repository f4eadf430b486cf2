"""What a training window allocates and frees, in order, and how that grows with the batch.

An event is (slot, bytes): slot was allocated with so many bytes, or freed where bytes is FREED. Slots count up from 0
within one trace.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tune_cropshield.errors import EstimateUnavailable

Event = tuple[int, int]
FREED = -1
BLOCK = 512  # bytes: PyTorch's CUDA allocator rounds every request up to a multiple of it


@dataclass(frozen=True)
class Window:
    """The events of a window, in order.

    first: the first micro-step. further: any further one, with gradients already there. release: dropping the
    gradients.
    """

    first: tuple[Event, ...]
    further: tuple[Event, ...]
    release: tuple[Event, ...]
    cast_cache_bytes: int  # half-precision copies of the weights


@dataclass(frozen=True)
class Events:
    """Allocations and frees in order, each of `fixed + per_image * batch` bytes (0 for a free)."""

    slots: tuple[int, ...]
    fixed: NDArray[np.int64]
    per_image: NDArray[np.float64]
    frees: NDArray[np.bool_]

    @classmethod
    def through(cls, small: Sequence[Event], large: Sequence[Event], batches: tuple[int, int]) -> Events:
        """Returns the events whose sizes pass through both traces.

        Args:
            small: the trace at the first of `batches`.
            large: the trace at the second.
            batches: images in a micro-batch.

        Raises:
            EstimateUnavailable: more than sizes differ between the traces.
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
