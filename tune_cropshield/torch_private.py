"""Undocumented parts of PyTorch: all that is used of them outside the memory estimate.

The memory estimate has its own in memory/predict/torch_private.py.

Each says why it is needed and how it would show that it has moved; tests/test_torch_private.py names it then. Tried
with PyTorch 2.9, 2.11 and 2.15.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import profiler

# The common base of BatchNorm1d, 2d and 3d and SyncBatchNorm; there is no documented one.
BatchNorm = nn.modules.batchnorm._BatchNorm


def nvml_index(index: int) -> int:
    """Returns the number under which NVIDIA's driver (NVML) knows PyTorch's GPU `index`.

    CUDA_VISIBLE_DEVICES renumbers the GPUs for CUDA alone; PyTorch knows both numbers, and its documented functions
    tell only figures that they ask NVML for themselves.
    """
    return int(torch.cuda._get_nvml_device_index(index))


def give_back_cublas_workspaces() -> None:
    """Frees the workspaces that cuBLAS keeps for each stream it has met, up to 32 MiB for each.

    `torch.cuda.empty_cache` leaves them, and every trial that captures graphs has a stream of its own.
    """
    torch._C._cuda_clearCublasWorkspaces()


def found_inf(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> Tensor:
    """Returns a 0-dim fp32 tensor on the device: above 0 where `scaler` has found a gradient that is not finite.

    GradScaler tells nobody whether its step was taken; to compare scales would wait for the device, and does not see
    what happens at the lowest scale.
    """
    found = sum(scaler._found_inf_per_device(optimizer).values())
    assert isinstance(found, Tensor)
    return found


def forget_unscaled(scaler: torch.amp.GradScaler) -> None:
    """Lets `scaler.unscale_` be called again: a window that failed after it is trained anew."""
    scaler._per_optimizer_states.clear()


def reads_found_inf(optimizer: torch.optim.Optimizer) -> bool:
    """Tells whether `optimizer.step` leaves everything as it is where its attribute `found_inf` is above 0.

    Fused optimizers do, on the device; GradScaler asks them by the same attribute.
    """
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def is_profiling() -> bool:
    """Tells whether a profiler runs: record_function costs a few microseconds without one too."""
    return bool(profiler._is_profiler_enabled)


def with_versions(state: Mapping[str, Tensor], model: nn.Module) -> OrderedDict[str, Tensor]:
    """Returns `state` with the versions of this PyTorch's own layers, which a file or a copy does not keep.

    MNASNet loads no state dict without them.
    """
    whole = OrderedDict(state)
    whole._metadata = getattr(model.state_dict(), "_metadata")  # type: ignore[attr-defined]  # noqa: B009
    return whole


# Many tensors in a few kernels: what torch.optim's foreach implementations use. Not documented, the same since 1.9.


def foreach_copy_(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies each source into its target, casting it where their types differ."""
    torch._foreach_copy_(list(targets), list(sources))


def foreach_add_(targets: Sequence[Tensor], others: Sequence[Tensor]) -> None:
    """Adds each other tensor to its target."""
    torch._foreach_add_(list(targets), list(others))


def foreach_zero_(targets: Sequence[Tensor]) -> None:
    """Sets each target to 0."""
    torch._foreach_zero_(list(targets))


def foreach_mul_(targets: Sequence[Tensor], factor: Tensor) -> None:
    """Multiplies each target by the 0-dim `factor`."""
    torch._foreach_mul_(list(targets), factor)


def foreach_norm(tensors: Sequence[Tensor], order: float) -> list[Tensor]:
    """Returns the norm of each tensor, 0-dim."""
    norms: Any = torch._foreach_norm(list(tensors), order)
    return list(norms)
