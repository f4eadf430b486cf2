"""What is asked of a network before anything is decoded or written: image sizes that it can take, weights that fit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import nn

from tune_cropshield.config import registry
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.models import build_model

# Sides in px that are suggested where another cannot be taken; some networks take a single one.
COMMON_SIZES = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 480, 512, 518)
CLASSES = 2  # any number does: sizes do not depend on it


def check_image_sizes(trial: TrialConfig) -> None:
    """Raises ConfigError when the network of `trial` cannot take images of a size that it would see."""
    if trial.model not in registry.MODELS:  # ours take every size that may be asked for
        check_sizes(trial.model, {trial.image_size, *trial.progressive_sizes.values()})


def check_sizes(model: str, sizes: Iterable[int]) -> None:
    """Raises ConfigError when `model` cannot take square images of one of `sizes`, in px.

    Its feature maps vanish, say, or it was made for another size.
    """
    for size in sorted(set(sizes)):
        fault = _fault(model, size)
        if fault is not None:
            taken = [known for known in COMMON_SIZES if known > size and _fault(model, known) is None]
            advice = f"{taken[0]} px works" if taken else "take another network"
            raise ConfigError([f"image_size: {model} cannot take pictures of {size} px ({fault}): {advice}"])


def check_pretrained(trial: TrialConfig, num_classes: int) -> None:
    """Raises ConfigError when the weights that `trial` starts from are missing, damaged or of another network."""
    if trial.pretrained:
        build_model(trial.model, num_classes, trial.pretrained)


@cache
def _fault(model: str, size: int) -> str | None:
    """Returns why a training step's forward pass cannot run at `size`, None when it can."""
    network = _network(model)
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            logits_BK = network(torch.zeros(2, 3, size, size, device=device))
    except Exception as error:  # every network fails in its own way
        return " ".join(str(error).split())[:120].rstrip(".")
    if not isinstance(logits_BK, torch.Tensor) or logits_BK.shape != (2, CLASSES):
        shape = tuple(logits_BK.shape) if isinstance(logits_BK, torch.Tensor) else type(logits_BK).__name__
        return f"it gives {shape} for 2 images and {CLASSES} classes, not logits (2, {CLASSES})"
    return None


@cache
def _network(model: str) -> nn.Module:
    """Returns the network in training mode: without numbers, but for a user's own, which may need them."""
    if registry.is_own(model):
        return build_model(model, CLASSES).train()
    try:
        with torch.device("meta"):
            network = build_model(model, CLASSES)
    except NotImplementedError:  # RegNet computes its widths with tensors
        network = build_model(model, CLASSES).to("meta")
    return network.train()
