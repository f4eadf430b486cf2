"""Claims that a computation settles: the range of fp16, the scaler's first scale, the size of a network, and what
nobody can measure in a minute.
"""

from __future__ import annotations

import torch

from tune_cropshield.doctor.claims import CLASSES
from tune_cropshield.doctor.figures import Figure, Figures, Key
from tune_cropshield.training.models import build_model


def constant_figures(model: str) -> Figures:
    """Returns the figures of `model` that need no measurement."""
    parameters = sum(parameter.numel() for parameter in build_model(model, CLASSES).parameters())
    return {
        Key("fp16_largest", model): Figure(torch.finfo(torch.float16).max, "computed"),
        Key("fp16_of_1e-7", model): Figure(
            float(torch.tensor(1e-7).half()), "computed", f"1e-8 becomes {float(torch.tensor(1e-8).half()):g}"
        ),
        Key("first_scale", model): Figure(torch.amp.GradScaler("cpu").get_scale(), "computed"),
        Key("parameters", model): Figure(parameters / 1e6, "computed", f"with {CLASSES} classes"),
        Key("clip_epochs", model): Figure(
            None, note="no run of a minute shows epochs saved: a search's trials with and without max_norm do"
        ),
    }
