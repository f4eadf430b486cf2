"""The weights that training starts from."""

from __future__ import annotations

from tune_cropshield.config import TrialConfig


def check_pretrained(trial: TrialConfig, num_classes: int) -> None:
    """Raises ConfigError when the weights that `trial` starts from are missing, damaged or of another network: before anything is written."""
    if trial.pretrained:
        from tune_cropshield.training.models import build_model

        build_model(trial.model, num_classes, trial.pretrained)
