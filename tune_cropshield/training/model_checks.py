"""What is asked of a network before anything is decoded or written: whether it can be trained as the settings say."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, partial

import torch
from torch import nn

from tune_cropshield.config import registry
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.models import build_model

# Sides in px that are suggested where another cannot be taken; some networks take a single one.
COMMON_SIZES = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 480, 512, 518)
CLASSES = 2  # any number does: sizes do not depend on it


def check_network(trial: TrialConfig) -> None:
    """Raises ConfigError when the network of `trial` cannot be trained as its settings say.

    It cannot take a size of its images, or so few at once, or adaptive clipping has nothing to clip.
    """
    if trial.model not in registry.MODELS:  # ours take every size that may be asked for
        check_sizes(trial.model, _sizes(trial))
    check_micro_batch(trial)
    if trial.agc != "none" and trial.freeze_backbone:
        reason = "adaptive clipping does not touch the last layer, and freeze_backbone trains nothing else"
        raise ConfigError([f"agc: {reason}, but got agc = {trial.agc}: take max_norm or clip_value"])


def check_micro_batch(trial: TrialConfig) -> None:
    """Raises ConfigError when `trial` would train on fewer images at once than its network can be trained on."""
    micro_batch, _ = trial.pair
    smallest = smallest_micro_batch(trial) if micro_batch == 1 else 1
    if micro_batch < smallest:
        fault = _fault(trial.model, min(_sizes(trial)), micro_batch, trial.freeze_backbone)
        name = "effective_batch" if trial.micro_batch is None else "micro_batch"
        where = f"{trial.model} at {min(_sizes(trial))} px"
        raise ConfigError([f"{name}: {where} cannot be trained on single images ({fault}): take {smallest} or more"])


def smallest_micro_batch(trial: TrialConfig) -> int:
    """Returns the fewest images that a training step of `trial` can work on at once: 2 or 1.

    Batch norm has no statistics of a single image whose feature maps have come down to one pixel.
    """

    def faults(images: int) -> list[str | None]:
        return [_fault(trial.model, size, images, trial.freeze_backbone) for size in _sizes(trial)]

    return 2 if any(faults(1)) and not any(faults(2)) else 1


def _sizes(trial: TrialConfig) -> set[int]:
    """Returns the sides, in px, of the images that `trial` trains on."""
    return {trial.image_size, *trial.progressive_sizes.values()}


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
def _fault(model: str, size: int, images: int = 2, freeze_backbone: bool = False) -> str | None:
    """Returns why a training step's forward pass cannot run on `images` of `size`, None when it can."""
    # A user's own network draws its weights on the CPU, and a trial may be under way.
    with torch.random.fork_rng(devices=[]):
        network = _network(model, freeze_backbone)
    device = next(network.parameters()).device
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits_BK = network(torch.zeros(images, 3, size, size, device=device))
    except Exception as error:  # every network fails in its own way
        return " ".join(str(error).split())[:120].rstrip(".")
    if not isinstance(logits_BK, torch.Tensor) or logits_BK.shape != (images, CLASSES):
        shape = tuple(logits_BK.shape) if isinstance(logits_BK, torch.Tensor) else type(logits_BK).__name__
        return f"it gives {shape} for {images} images and {CLASSES} classes, not logits ({images}, {CLASSES})"
    return None


@cache
def _network(model: str, freeze_backbone: bool) -> nn.Module:
    """Returns the network in training mode: without numbers, but for a user's own, which may need them."""
    build = partial(build_model, model, CLASSES, freeze_backbone=freeze_backbone)
    if registry.is_own(model):
        return build().train()
    try:
        with torch.device("meta"):
            network = build()
    except NotImplementedError:  # RegNet computes its widths with tensors
        network = build().to("meta")
    return network.train()
