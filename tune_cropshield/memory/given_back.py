"""Whether a trial has given its GPU memory back, so that the next one finds what it was promised."""

from __future__ import annotations

import gc

import torch

from tune_cropshield.memory.card import MIB

# A trial's leavings are hundreds of MiB; counters and seeds of libraries are less than this.
SMALL_MIB = 64.0


def give_back(device: torch.device) -> float:
    """Hands what is free in this process's allocator back to the driver, and returns the MiB still allocated on `device`; 0 on a CPU."""
    gc.collect()  # a trainer's parts refer to each other
    if device.type != "cuda":
        return 0.0
    torch._C._cuda_clearCublasWorkspaces()  # else up to 32 MiB stay for each stream, and every trial that captures graphs has one of its own
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(device) / MIB


def why_retire(allocated_mib: float, kept_mib: float) -> str | None:
    """Returns why a process that still holds `allocated_mib` between trials should not train another, or None when it may.

    kept_mib: what it holds on purpose, the pictures and labels of all trials.
    """
    left = allocated_mib - kept_mib
    return f"{left:.0f} MiB of the last trial were still allocated: its worker was replaced" if left > SMALL_MIB else None
