"""PyTorch's CUDA caching allocator, replayed.

It tells which segments the allocator takes from the driver for a series of allocations and frees.

Rules (c10/cuda/CUDACachingAllocator.cpp, defaults, one stream): a request is rounded up to 512 B; up to 1 MiB it comes
from 2 MiB segments, up to 10 MiB from 20 MiB segments, above from a segment of its own, rounded up to 2 MiB. The
smallest cached block that is large enough is taken and split when the rest is worth keeping; a freed block joins its
free neighbours. Segments are kept.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from tune_cropshield.memory.predict.events import BLOCK, FREED, Event

SMALL_REQUEST = 2**20
SMALL_SEGMENT = 2 * 2**20
MIDDLE_REQUEST = 10 * 2**20
MIDDLE_SEGMENT = 20 * 2**20


def rounded(num_bytes: int, unit: int = BLOCK) -> int:
    """Returns `num_bytes` rounded up to a multiple of `unit`."""
    return -(-num_bytes // unit) * unit


class _Block:
    __slots__ = ("address", "after", "before", "free", "size")

    def __init__(self, address: int, size: int, before: _Block | None, after: _Block | None) -> None:
        self.address, self.size, self.before, self.after, self.free = address, size, before, after, False


class CachingAllocator:
    """Holds what was allocated and reserved so far, and the highest both have been, in bytes."""

    def __init__(self) -> None:
        self.allocated = self.reserved = self.peak_allocated = 0
        self._next_address = 0
        self._living: dict[object, tuple[_Block, int]] = {}
        self._blocks: dict[int, _Block] = {}
        # Whether it is the small pool -> sorted (size, address).
        self._free: dict[bool, list[tuple[int, int]]] = {True: [], False: []}

    def replay(self, events: Iterable[Event]) -> None:
        """Allocates and frees in order; a slot may be used again once it was freed."""
        for slot, num_bytes in events:
            if num_bytes == FREED:
                self.free(slot)
            else:
                self.allocate(slot, num_bytes)

    def allocate(self, name: object, num_bytes: int) -> None:
        """Takes a block for `name`, which must not have one."""
        size = max(BLOCK, rounded(num_bytes))
        small = size <= SMALL_REQUEST
        pool = self._free[small]
        at = bisect_left(pool, (size, -1))
        if at < len(pool):
            block = self._blocks[pool.pop(at)[1]]
        else:
            block = self._new_segment(
                SMALL_SEGMENT if small else MIDDLE_SEGMENT if size < MIDDLE_REQUEST else rounded(size, SMALL_SEGMENT)
            )
        block.free = False
        rest = block.size - size
        if rest >= BLOCK if small else rest > SMALL_REQUEST:
            tail = _Block(block.address + size, rest, block, block.after)
            if block.after is not None:
                block.after.before = tail
            block.after, block.size = tail, size
            self._put_back(tail, small)
        self._living[name] = (block, size)
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def free(self, name: object) -> None:
        """Hands the block of `name` back."""
        block, size = self._living.pop(name)
        small = size <= SMALL_REQUEST
        self.allocated -= block.size
        if block.before is not None and block.before.free:
            before = block.before
            self._take_out(before, small)
            before.size += block.size
            before.after = block.after
            if block.after is not None:
                block.after.before = before
            block = before
        if block.after is not None and block.after.free:
            after = block.after
            self._take_out(after, small)
            block.size += after.size
            block.after = after.after
            if after.after is not None:
                after.after.before = block
        self._put_back(block, small)

    def _new_segment(self, size: int) -> _Block:
        block = _Block(self._next_address, size, None, None)
        self._blocks[block.address] = block
        self._next_address += size
        self.reserved += size
        return block

    def _put_back(self, block: _Block, small: bool) -> None:
        block.free = True
        self._blocks[block.address] = block
        insort(self._free[small], (block.size, block.address))

    def _take_out(self, block: _Block, small: bool) -> None:
        pool = self._free[small]
        del pool[bisect_left(pool, (block.size, block.address))]
        del self._blocks[block.address]
