"""Tensors in the host's memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from tune_cropshield.training.gradients import parts_of

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
NEVER = 2**31 - 1
JOINED_BYTES = 2**20  # PyTorch's allocator keeps pieces of up to 1 MiB apart, in little room


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory for the next tensor instead of handing its pages back, and returns whether it did.

    Every training step frees and takes the same megabytes; handed back, each page is faulted in again, zeroed, every step. Measured: a fifth of an
    epoch of a small CNN. The process's memory then stays at its peak until it ends. Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(M_TRIM_THRESHOLD, NEVER)) and bool(mallopt(M_MMAP_THRESHOLD, NEVER))


def copies_on_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns copies on the CPU, strides kept. From a GPU they come in pieces of pinned memory, one for each type, and it is waited for only once.

    Small tensors are joined on the GPU before, up to JOINED_BYTES: to copy a thousand, as a network and its optimizer have, takes no time but that
    of the calls.
    """
    copies = [tensor.detach().clone() if tensor.device.type == "cpu" else tensor.detach() for tensor in tensors]
    by_type: dict[torch.dtype, list[int]] = {}
    for position, tensor in enumerate(copies):
        if tensor.is_cuda:
            by_type.setdefault(tensor.dtype, []).append(position)
    for dtype, positions in by_type.items():
        originals = [_dense(copies[position]) for position in positions]
        sizes = [original.numel() for original in originals]
        room = torch.empty(sum(sizes), dtype=dtype, pin_memory=True)
        filled = 0
        for part in parts_of([original.as_strided((original.numel(),), (1,)) for original in originals], JOINED_BYTES):
            joined = torch.cat(part) if len(part) > 1 else part[0]
            room[filled : filled + len(joined)].copy_(joined, non_blocking=True)
            filled += len(joined)
        for position, original, copy in zip(positions, originals, room.split(sizes), strict=True):
            copies[position] = copy.as_strided(original.shape, original.stride())
    if by_type:
        torch.cuda.synchronize()
    return copies


def _dense(tensor: Tensor) -> Tensor:
    """Returns `tensor`, or a copy of it, without gaps in its memory."""
    return tensor if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last) else tensor.contiguous()
