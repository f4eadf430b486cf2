"""Optimizers whose learning rate is a tensor on the device.

An optimizer of your own is a function like `sgd` below; its name goes into `optimizer` of a settings file as
file.py:name.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tune_cropshield import torch_private
from tune_cropshield.config import registry

Groups = list[dict[str, Any]]


def parameter_groups(model: nn.Module, weight_decay: float) -> Groups:
    """Returns two groups of the trainable parameters: those that decay, and those that do not.

    Matrices and convolutions decay; norms and biases (fewer than two dimensions) do not.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, name: str, lr: Tensor, weight_decay: float, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """Returns the optimizer called `name` over the trainable parameters of `model`.

    Args:
        lr: 0-dim fp32 tensor on the model's device. It stays the caller's: whoever changes it in place changes the next
            update, without a word between host and device.
    """
    optimizer: torch.optim.Optimizer = registry.resolve("optimizer", name)(
        parameter_groups(model, weight_decay), lr, momentum
    )
    return optimizer


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


def share_lr(optimizer: torch.optim.Optimizer, lr: Tensor) -> None:
    """Makes every group read `lr` again, after load_state_dict has replaced it by a copy."""
    for group in optimizer.param_groups:
        group["lr"] = lr
