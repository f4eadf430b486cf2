"""What accumulation does to batch norms, and the part of it that can be put right."""

from __future__ import annotations

from torch import nn


def correct_momentum(model: nn.Module, accumulation: float) -> None:
    """Sets each batch norm's momentum m to 1 - (1 - m)^(1/k), so that the k micro-batches of a window move its running statistics as far as
    one batch would. Call it once per model, and again with k'/k when k becomes k'; momentum None (a cumulative average) is left alone.

    The normalisation itself still uses each micro-batch's own statistics: below about 16 images they are too noisy to train well
    (Wu and He, https://arxiv.org/abs/1803.08494, figure 1).
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** (1 / accumulation)
