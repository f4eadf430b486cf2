"""How a process is held to its share of a GPU's memory, and whether a trial has given its own back for the next."""

from __future__ import annotations

import gc

import torch

from tune_cropshield import torch_private
from tune_cropshield.config.units import MIB

# A trial's leavings are hundreds of MiB; counters and seeds of libraries are less than this.
SMALL_MIB = 64.0


def cap_allocator(share_mib: float | None, device: torch.device) -> None:
    """Holds this process's allocator on `device` to `share_mib` from now on; None lifts the cap. Does nothing on a CPU.

    Beyond the cap torch raises OutOfMemoryError, on Windows too, where the driver alone would spill into system memory.
    """
    if device.type != "cuda":
        return
    index = torch.cuda.current_device() if device.index is None else device.index
    total_mib = torch.cuda.get_device_properties(index).total_memory / MIB
    torch.cuda.set_per_process_memory_fraction(1.0 if share_mib is None else min(share_mib / total_mib, 1.0), index)


def give_back(device: torch.device) -> float:
    """Hands what is free in this process's allocator back to the driver.

    Returns the MiB still allocated on `device`; 0 on a CPU.
    """
    gc.collect()  # a trainer's parts refer to each other
    if device.type != "cuda":
        return 0.0
    torch_private.give_back_cublas_workspaces()
    torch.cuda.empty_cache()
    return torch.cuda.memory_allocated(device) / MIB


def why_retire(allocated_mib: float, kept_mib: float) -> str | None:
    """Returns why a process should not train another trial, or None when it may.

    allocated_mib: what it still holds between trials.

    kept_mib: what it holds on purpose, the pictures and labels of all trials.
    """
    left = allocated_mib - kept_mib
    return (
        f"{left:.0f} MiB of the last trial were still allocated: its worker process was replaced"
        if left > SMALL_MIB
        else None
    )
