"""What lies on a GPU, copied to the host's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tune_cropshield.config.units import MIB

JOINED_BYTES = MIB  # PyTorch's allocator keeps pieces of up to 1 MiB apart, in little room
# Of the host's memory in a piece: PyTorch rounds pinned ones up to a power of two, and keeps them for the next.
ROOM_BYTES = 64 * MIB


def copies_on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns copies on the CPU, with the same strides but where the tensor has gaps or is turned.

    A GPU is waited for only once. Small tensors are joined there before, up to JOINED_BYTES: to copy a thousand, as a
    network and its optimizer have, takes no time but that of the calls. The copies of one type share pieces of memory,
    pinned where there is such.
    """
    copies = [tensor.detach().clone() if tensor.device.type == "cpu" else _dense(tensor.detach()) for tensor in tensors]
    on_gpu = [position for position, tensor in enumerate(tensors) if tensor.device.type != "cpu"]
    for dtype in {copies[position].dtype for position in on_gpu}:
        positions = iter([position for position in on_gpu if copies[position].dtype == dtype])
        for originals in parts_of(
            [copies[position] for position in on_gpu if copies[position].dtype == dtype], ROOM_BYTES
        ):
            for original, place in zip(originals, _filled_room(originals), strict=True):
                copies[next(positions)] = place.as_strided(original.shape, original.stride())
    for device in {tensors[position].device for position in on_gpu}:
        torch.cuda.synchronize(device)
    return copies


def _filled_room(originals: Sequence[Tensor]) -> Sequence[Tensor]:
    """Returns the flat place of each on the host, which the GPU is still to fill. originals: dense, of one type."""
    sizes = [original.numel() for original in originals]
    room = _room(sum(sizes), originals[0].dtype)
    filled = 0
    for part in parts_of([original.as_strided((original.numel(),), (1,)) for original in originals], JOINED_BYTES):
        joined = torch.cat(part) if len(part) > 1 else part[0]
        room[filled : filled + len(joined)].copy_(joined, non_blocking=True)
        filled += len(joined)
    return list(room.split(sizes))


def _room(size: int, dtype: torch.dtype) -> Tensor:
    """Returns pinned memory, or ordinary where the system gives no more of it: then each copy waits for the GPU."""
    try:
        return torch.empty(size, dtype=dtype, pin_memory=True)
    except RuntimeError:
        return torch.empty(size, dtype=dtype)


def _dense(tensor: Tensor) -> Tensor:
    """Returns `tensor`, or a copy of it, without gaps in its memory."""
    return (
        tensor
        if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
        else tensor.contiguous()
    )


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
