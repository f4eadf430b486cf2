"""Tells apart the ways in which a GPU fails.

No memory left, which smaller batches cure; a dead context, which only a new process does; and a failed assertion,
after which the context is dead too, but which a new process would only meet again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tune_cropshield.errors import DeadContextError, FailedAssertion, OutOfMemory, RunFailure

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
# A process that has met one of these gets nothing but errors from the GPU from then on. They may be the card's: another
# process can try again. CUDA's names: illegal address, launch failure, hardware stack error, timeout, ECC, NVLink.
DEAD_CARD_TEXTS = (
    "illegal memory access",
    "illegal instruction",
    "illegal address",
    "misaligned address",
    "address space not supported",
    "invalid program counter",
    "unspecified launch failure",
    "launch timed out",
    "hardware stack error",
    "uncorrectable ecc error",
    "uncorrectable nvlink error",
    "context is destroyed",
    "fallen off the bus",
    "external device",
    "cuda error: unknown error",
)
# The same, but it is the program that is wrong: an assertion in a kernel failed, as when a class number is too large.
# Every process would meet it again.
FAILED_ASSERTION_TEXT = "device-side assert"


def is_out_of_memory(error: BaseException) -> bool:
    """Tells whether `error` says that memory ran out, whichever library noticed it."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and not isinstance(error, RunFailure) and _holds(error, OUT_OF_MEMORY_TEXTS)


def what_killed_context(error: BaseException) -> BaseException | None:
    """Returns the error after which the GPU takes no more work from this process; None where it still does.

    A library that meets a dead context says so in its own words (CUBLAS_STATUS_EXECUTION_FAILED), often long before
    PyTorch does: the GPU itself is asked.
    """
    if not isinstance(error, RuntimeError) or isinstance(error, RunFailure) or is_out_of_memory(error):
        return None
    if _holds(error, (*DEAD_CARD_TEXTS, FAILED_ASSERTION_TEXT)):
        return error
    if torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except RuntimeError as first:
            return first if _holds(first, (*DEAD_CARD_TEXTS, FAILED_ASSERTION_TEXT)) else None
    return None


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

    A dead context becomes DeadContextError, or FailedAssertion where the program is at fault, and memory that runs out
    where nothing can be made smaller becomes OutOfMemory. Other errors of CUDA, such as a wrong argument, stay what
    they are: the process can go on after them, and another process would meet them again.
    """
    try:
        yield
    except RuntimeError as error:
        cause = what_killed_context(error)
        if cause is not None and _holds(cause, (FAILED_ASSERTION_TEXT,)):
            raise FailedAssertion(f"the program failed on the GPU: {first_line(cause)}") from error
        if cause is not None:
            raise DeadContextError(f"the GPU takes no more work from this process: {first_line(cause)}") from error
        if is_out_of_memory(error):
            raise OutOfMemory(f"out of memory outside of an update: {first_line(error)}") from error
        raise
