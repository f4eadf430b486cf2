"""The training step of a plain script: forward under autocast, scaled backward and, where asked, clipping.

A trial's own step would not do: it measures the gradient's norm in any case, so that the cost of clipping could not be
told by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from tune_cropshield.config.reference import REFERENCE_CLASSES
from tune_cropshield.config.settings import Precision
from tune_cropshield.training.build import memory_format
from tune_cropshield.training.models import build_model
from tune_cropshield.training.precision import DTYPES, autocast, gradient_scaler


@dataclass(frozen=True)
class StepSettings:
    """One way to make an update of micro_batch x accumulation images."""

    model: str
    image_size: int
    precision: Precision
    channels_last: bool
    micro_batch: int
    accumulation: int = 1
    max_norm: float | None = None


class PlainStep:
    """A step (see memory/measure/step_driver.py) on random images.

    They lie on the device already: no augmentation, no loader.
    """

    def __init__(self, settings: StepSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        layout = memory_format(settings.channels_last)
        self.model = (
            build_model(settings.model, REFERENCE_CLASSES, image_size=settings.image_size)
            .to(device)
            .to(memory_format=layout)
            .train()
        )
        self.parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, fused=True)
        self.scaler = gradient_scaler(settings.precision, device)
        shape = (settings.micro_batch, 3, settings.image_size, settings.image_size)
        self.images_BCHW = torch.randn(shape, device=device, dtype=DTYPES[settings.precision]).to(memory_format=layout)
        self.labels_B = torch.randint(REFERENCE_CLASSES, (settings.micro_batch,), device=device)

    def window(self) -> None:
        """Makes one optimizer update."""
        self.backward()
        if self.settings.max_norm is not None:
            self.scaler.unscale_(self.optimizer)
            self.clip()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self) -> None:
        """Adds up the gradients of one window."""
        for _ in range(self.settings.accumulation):
            with autocast(self.settings.precision, self.device):
                logits_BK = self.model(self.images_BCHW)
            loss = F.cross_entropy(logits_BK.float(), self.labels_B, reduction="sum") / (
                self.settings.micro_batch * self.settings.accumulation
            )
            self.scaler.scale(loss).backward()

    def clip(self) -> None:
        """Clips the gradients that are there, without a word between host and device."""
        nn.utils.clip_grad_norm_(self.parameters, self.settings.max_norm or 1.0)

    def finish(self) -> None:
        """Does nothing: the script that this stands for does nothing else that takes memory."""

    @property
    def images_per_window(self) -> int:
        """How many images one update is made from."""
        return self.settings.micro_batch * self.settings.accumulation
