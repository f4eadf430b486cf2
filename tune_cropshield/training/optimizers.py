"""Optimizers whose learning rate is a tensor on the device.

An optimizer of your own is a function like `sgd` below; its name goes into `optimizer` of a settings file as
file.py:name.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from tune_cropshield import torch_private
from tune_cropshield.config import registry
from tune_cropshield.errors import ConfigError

Groups = list[dict[str, Any]]
LR_SHARE = "lr_share"  # of a group: its learning rate is `lr` times this; a group without one has `lr` itself


def parameter_groups(
    model: nn.Module, weight_decay: float, lr: Tensor, lr_shares: Mapping[nn.Parameter, float]
) -> Groups:
    """Returns the trainable parameters in groups: those that decay, then those that do not, by their share of `lr`.

    Matrices and convolutions decay; norms and biases (fewer than two dimensions) do not. Groups of the same share read
    the same tensor.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in sorted(trainable, key=lambda parameter: parameter.ndim <= 1):
        groups.setdefault((parameter.ndim > 1, lr_shares.get(parameter, 1.0)), []).append(parameter)
    own_lr = {share: torch.zeros_like(lr) for _, share in groups if share != 1}
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            **({"lr": own_lr[share], LR_SHARE: share} if share != 1 else {}),
        }
        for (decays, share), parameters in groups.items()
    ]


def build_optimizer(
    model: nn.Module,
    name: str,
    lr: Tensor,
    weight_decay: float,
    momentum: float = 0.9,
    lr_shares: Mapping[nn.Parameter, float] = MappingProxyType({}),
) -> torch.optim.Optimizer:
    """Returns the optimizer called `name` over the trainable parameters of `model`.

    Args:
        lr: 0-dim fp32 tensor on the model's device. It stays the caller's: whoever changes it in place, and calls
            `follow_lr` then, changes the next update, without a word between host and device.
        lr_shares: what `lr` is multiplied by for a parameter; 1 for those that are left out.

    Raises:
        ConfigError: a user's own optimizer does not keep the groups, and with them the shares.
    """
    groups = parameter_groups(model, weight_decay, lr, lr_shares)
    given = _lr_places(groups)
    optimizer: torch.optim.Optimizer = registry.resolve("optimizer", name)(groups, lr, momentum)
    if _lr_places(optimizer.param_groups) != given:
        raise ConfigError(
            [
                f"optimizer {name!r} must keep the groups that it is given, and the learning rate of each: with "
                "backbone_lr_factor or layer_decay they differ, and otherwise these would have no effect"
            ]
        )
    return optimizer


def _lr_places(groups: Groups) -> dict[int, tuple[float, int]]:
    """Returns {id of a parameter: share of the learning rate, id of its tensor}, of groups with a share."""
    return {
        id(parameter): (group[LR_SHARE], id(group["lr"]))
        for group in groups
        if LR_SHARE in group
        for parameter in group["params"]
    }


def adamw(groups: Groups, lr: Tensor, momentum: float) -> torch.optim.Optimizer:
    """Returns a fused AdamW; `momentum` is not used.

    A fused step honours `found_inf`: it is called on overflow too, and then leaves weights and state as they are. The
    state is made here because torch makes it in the first step, and again in every replay where that step is captured
    in a CUDA graph.
    """
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True, capturable=lr.device.type == "cuda")
    for parameter in _parameters(groups):
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        averages = {"exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
        optimizer.state[parameter].update(step=step, **averages)
    return optimizer


def sgd(groups: Groups, lr: Tensor, momentum: float) -> torch.optim.Optimizer:
    """Returns a fused SGD with momentum.

    Its state is made here as in `adamw`; torch would leave it uninitialised where the first step is skipped, as often
    happens in fp16.
    """
    optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
    for parameter in _parameters(groups) if momentum else []:
        optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _parameters(groups: Groups) -> list[nn.Parameter]:
    return [parameter for group in groups for parameter in group["params"]]


def scale_momentum(optimizer: torch.optim.Optimizer, factor: Tensor) -> None:
    """Makes the next step of `sgd` one of its momentum times `factor`, a 0-dim tensor on the device.

    A step computes momentum * buffer + gradient, where momentum is a number that a CUDA graph holds once and for all:
    so it is the buffers that are multiplied.
    """
    torch_private.foreach_mul_([state["momentum_buffer"] for state in optimizer.state.values()], factor)


def lr_shares_of(optimizer: torch.optim.Optimizer) -> list[float]:
    """Returns the shares of the learning rate that groups of `optimizer` have, where they are not 1."""
    return [group[LR_SHARE] for group in optimizer.param_groups if LR_SHARE in group]


def follow_lr(optimizer: torch.optim.Optimizer, lr: Tensor) -> None:
    """Sets the learning rate of each group that has a share to `lr` times that, on the device."""
    for group in optimizer.param_groups:
        if LR_SHARE in group:
            torch.mul(lr, group[LR_SHARE], out=group["lr"])


def share_lr(optimizer: torch.optim.Optimizer, lr: Tensor) -> None:
    """Makes every group read `lr` again, after load_state_dict has replaced it by a copy; `follow_lr` has to follow."""
    for group in optimizer.param_groups:
        group["lr"] = torch.zeros_like(lr) if LR_SHARE in group else lr
