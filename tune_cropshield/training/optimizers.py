"""Fused optimizers whose learning rate is a tensor on the device."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Returns two groups of the trainable parameters: matrices and convolutions decay; norms and biases (fewer than two
    dimensions) do not.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trainable if parameter.ndim > 1], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trainable if parameter.ndim <= 1], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module, name: Literal["adamw", "sgd"], lr: Tensor, weight_decay: float, momentum: float = 0.9
) -> torch.optim.Optimizer:
    """Returns a fused optimizer over the trainable parameters of `model`, with its state already made.

    `lr` is a 0-dim fp32 tensor on the model's device and stays the caller's: whoever changes it in place changes the
    next update, without a word between host and device. A fused step also honours `found_inf`: it is called on overflow
    and leaves weights and state as they are. The state is made here because torch makes it in the first step:
    uninitialised where that step is skipped (SGD's momentum, as often happens in fp16), and made anew by every replay
    where that step is captured in a CUDA graph.
    """
    groups = parameter_groups(model, weight_decay)
    parameters = [parameter for group in groups for parameter in group["params"]]
    optimizer: torch.optim.Optimizer
    if name == "sgd":
        optimizer = torch.optim.SGD(groups, lr=lr, momentum=momentum, fused=True)
        for parameter in parameters if momentum else []:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    optimizer = torch.optim.AdamW(groups, lr=lr, fused=True, capturable=lr.device.type == "cuda")
    for parameter in parameters:
        step = torch.zeros((), dtype=torch.float32, device=parameter.device)
        optimizer.state[parameter].update(
            step=step, exp_avg=torch.zeros_like(parameter), exp_avg_sq=torch.zeros_like(parameter)
        )
    return optimizer


def share_lr(optimizer: torch.optim.Optimizer, lr: Tensor) -> None:
    """Makes every group read `lr` again, after load_state_dict has replaced it by a copy."""
    for group in optimizer.param_groups:
        group["lr"] = lr
