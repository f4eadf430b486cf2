"""Tells apart two ways in which a GPU fails.

No memory left, which smaller batches cure, and a dead context, which only a new process does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tune_cropshield.errors import DeadContextError, OutOfMemory, RunFailure

# In lower case; PyTorch raises most of these as a plain RuntimeError. cuDNN takes its scratch space itself: when there
# is none left it says that it has no algorithm, or that something inside it failed.
OUT_OF_MEMORY_TEXTS = (
    "cuda out of memory",  # PyTorch's allocator
    "cuda error: out of memory",  # the driver: a kernel's stack, pinned memory, the context itself
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudnn_status_not_supported",
    "cudnn_status_internal_error",
    "unable to find an engine",  # "GET was unable to find an engine to execute this computation"
    "defaultcpuallocator: can't allocate memory",
    "defaultcpuallocator: not enough memory",  # Windows
)
# A process that has met one of these gets nothing but errors from the GPU from then on.
DEAD_CONTEXT_TEXTS = (
    "illegal memory access",
    "illegal instruction",
    "illegal address",
    "misaligned address",
    "unspecified launch failure",
    "device-side assert",
    "uncorrectable ecc error",
    "cuda error: unknown error",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether `error` says that memory ran out, whichever library noticed it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and not isinstance(error, RunFailure) and _holds(error, OUT_OF_MEMORY_TEXTS)


def is_dead_context(error: BaseException) -> bool:
    """Tells whether the GPU takes no more work from this process after `error`."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.AcceleratorError) or _holds(error, DEAD_CONTEXT_TEXTS)


def _holds(error: BaseException, texts: tuple[str, ...]) -> bool:
    message = str(error).lower()
    return any(text in message for text in texts)


def first_line(error: BaseException) -> str:
    """Returns what an error says, without the advice and stack that PyTorch appends."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextmanager
def gpu_errors_named() -> Iterator[None]:
    """Inside, errors of the GPU become errors of ours.

    A dead context becomes DeadContextError, and memory that runs out where nothing can be made smaller becomes
    OutOfMemory.
    """
    try:
        yield
    except RuntimeError as error:
        if is_dead_context(error):
            raise DeadContextError(f"the GPU takes no more work from this process: {first_line(error)}") from error
        if is_out_of_memory(error):
            raise OutOfMemory(f"out of memory outside a window: {first_line(error)}") from error
        raise
