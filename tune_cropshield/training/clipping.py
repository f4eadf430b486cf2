"""Gradient clipping by global norm, by value, adaptively (AGC), or not at all.

No function here waits for the device.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tune_cropshield import torch_private

AGC_SMALLEST_WEIGHT_NORM = 1e-3  # keeps freshly zeroed weights trainable; epsilon in the paper


@dataclass(frozen=True)
class Clipping:
    """Which clipping, and its bound; None clips nothing."""

    kind: Literal["norm", "value", "agc"]
    bound: float


def chosen_clipping(
    max_norm: float | Literal["none"],
    clip_value: float | Literal["none"] = "none",
    agc: float | Literal["none"] = "none",
) -> Clipping | None:
    """Returns the one clipping whose bound is not "none", or None."""
    if max_norm != "none":
        return Clipping("norm", max_norm)
    if clip_value != "none":
        return Clipping("value", clip_value)
    if agc != "none":
        return Clipping("agc", agc)
    return None


def clip_gradients(
    parameters: Sequence[nn.Parameter], clipping: Clipping | None, classifier: Collection[nn.Parameter] = ()
) -> tuple[Tensor, Tensor]:
    """Clips the gradients of `parameters` in place; they must be unscaled already.

    Returns two 0-dim tensors: the global L2 norm before clipping (inf or NaN when a gradient is), and whether clipping
    changed anything (bool). Parameters without a gradient are passed over.

    classifier: those of `parameters` that adaptive clipping leaves alone.
    """
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    gradients = [parameter.grad for parameter in with_gradient if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if clipping is None:
        return norm, torch.zeros((), dtype=torch.bool, device=norm.device)
    if clipping.kind == "norm":
        nn.utils.clip_grads_with_norm_(with_gradient, clipping.bound, norm)
        return norm, norm > clipping.bound
    if clipping.kind == "value":
        largest = torch.stack(torch_private.foreach_norm(gradients, float("inf"))).max()
        nn.utils.clip_grad_value_(with_gradient, clipping.bound)
        return norm, largest > clipping.bound
    left_alone = {id(parameter) for parameter in classifier}
    clipped = [parameter for parameter in with_gradient if id(parameter) not in left_alone]
    if not clipped:
        return norm, torch.zeros((), dtype=torch.bool, device=norm.device)
    return norm, _clip_adaptively(clipped, clipping.bound)


def _clip_adaptively(parameters: Sequence[nn.Parameter], ratio: float) -> Tensor:
    """Scales each unit's gradient to at most `ratio` of the norm of the unit's weights; returns whether any was.

    A unit is one output channel (the first dimension); a vector or scalar is one unit. `ratio` is lambda in Brock et
    al., "High-Performance Large-Scale Image Recognition Without Normalization", https://arxiv.org/abs/2102.06171,
    section 4.1, where the classifier is not clipped.
    """
    clipped = []
    for parameter in parameters:
        assert parameter.grad is not None
        inner = tuple(range(1, parameter.ndim)) if parameter.ndim > 1 else None
        keep = parameter.ndim > 1
        weight_norms = torch.linalg.vector_norm(parameter.detach(), dim=inner, keepdim=keep).clamp(
            min=AGC_SMALLEST_WEIGHT_NORM
        )
        gradient_norms = torch.linalg.vector_norm(parameter.grad, dim=inner, keepdim=keep)
        scale = (ratio * weight_norms / gradient_norms.clamp(min=1e-12)).clamp(max=1.0)
        parameter.grad.mul_(scale)
        clipped.append((scale < 1).any())
    return torch.stack(clipped).any()
