"""A trained network, read back from its safetensors."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from tune_cropshield.config import TrialConfig
from tune_cropshield.errors import RunFailure
from tune_cropshield.training.build import memory_format
from tune_cropshield.training.models import build_model


def load_trained(trial: TrialConfig, num_classes: int, weights: Path, device: torch.device) -> nn.Module:
    """Returns the network of `trial` with the weights in `weights`, on `device`, ready to predict. Raises RunFailure when the file is damaged."""
    model = build_model(trial.model, num_classes, dropout=trial.dropout)
    try:
        model.load_state_dict(load_file(weights))
    except Exception as error:
        raise RunFailure(f"{weights} cannot be read: {error}") from error
    return model.to(device).to(memory_format=memory_format(trial.channels_last)).eval()
