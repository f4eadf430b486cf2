"""The sizes of pictures that a training asks for."""

from __future__ import annotations

from tune_cropshield.config import TrialConfig
from tune_cropshield.model_names import OWN_MODELS


def check_image_sizes(trial: TrialConfig) -> None:
    """Raises ConfigError when the network of `trial` cannot take pictures of a size that it would see: before any is decoded."""
    if trial.model not in OWN_MODELS:  # ours take every size that may be asked for; to ask torchvision's, it must be loaded
        from tune_cropshield.training.sizes import check_sizes

        check_sizes(trial.model, {trial.image_size, *trial.progressive_sizes.values()})
