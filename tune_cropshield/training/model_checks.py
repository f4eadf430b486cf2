"""Which sizes of pictures a network can take, found out without computing anything."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import nn

from tune_cropshield.config.model_names import OWN_MODELS
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.models import build_model

COMMON_SIZES = (
    16,
    32,
    48,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    240,
    256,
    288,
    299,
    320,
    384,
    448,
    480,
    512,
    518,
)  # px; some take a single one


def check_sizes(model: str, sizes: Iterable[int]) -> None:
    """Raises ConfigError when `model` cannot take square pictures of one of `sizes`, in px: its feature maps vanish, or
    it was made for another.
    """
    for size in sorted(set(sizes)):
        fault = _fault(model, size)
        if fault is not None:
            taken = [known for known in COMMON_SIZES if known > size and _fault(model, known) is None]
            advice = f"{taken[0]} px works" if taken else "take another network"
            raise ConfigError([f"image_size: {model} cannot take pictures of {size} px ({fault}): {advice}"])


@cache
def _fault(model: str, size: int) -> str | None:
    """Returns why a training step's forward pass cannot run at `size`, None when it can."""
    try:
        _on_meta(model)(torch.empty(2, 3, size, size, device="meta"))
    except Exception as error:  # every network fails in its own way
        return " ".join(str(error).split())[:120].rstrip(".")
    return None


@cache
def _on_meta(model: str) -> nn.Module:
    """Returns the network without its numbers."""
    with torch.device("meta"):
        return build_model(model, 2).train()


def check_image_sizes(trial: TrialConfig) -> None:
    """Raises ConfigError when the network of `trial` cannot take pictures of a size that it would see: before any is
    decoded.
    """
    if (
        trial.model not in OWN_MODELS
    ):  # ours take every size that may be asked for; to ask torchvision's, it must be loaded
        check_sizes(trial.model, {trial.image_size, *trial.progressive_sizes.values()})


def check_pretrained(trial: TrialConfig, num_classes: int) -> None:
    """Raises ConfigError when the weights that `trial` starts from are missing, damaged or of another network: before
    anything is written.
    """
    if trial.pretrained:
        from tune_cropshield.training.models import build_model

        build_model(trial.model, num_classes, trial.pretrained)
