"""Many tensors in parts of a bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor


def parts_of(tensors: Sequence[Tensor], most_bytes: int) -> Iterator[list[Tensor]]:
    """Yields `tensors` in their order, in parts that take at most `most_bytes`, or that are one alone."""
    part: list[Tensor] = []
    taken = 0
    for tensor in tensors:
        if part and taken + tensor.nbytes > most_bytes:
            yield part
            part, taken = [], 0
        part.append(tensor)
        taken += tensor.nbytes
    if part:
        yield part
