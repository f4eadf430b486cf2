"""Learning-rate schedules: a pure function of the number of applied updates, and plateau's drop between epochs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

WARMUP_START = 1 / 25  # of the peak; torch.optim.lr_scheduler.OneCycleLR's div_factor
ONECYCLE_RISE = 0.3  # share of all updates that rise, unless warm-up says otherwise; OneCycleLR's pct_start
ONECYCLE_END = 1 / (25 * 1e4)  # of the peak; OneCycleLR's div_factor * final_div_factor

Schedule = Literal["onecycle", "plateau", "cosine", "step", "constant"]


def lr_factor(
    update: int,
    *,
    schedule: Schedule,
    total_updates: int,
    warmup_updates: int = 0,
    step_updates: int = 1,
    step_factor: float = 0.1,
) -> float:
    """Returns what the peak learning rate is multiplied by for the update after `update` applied ones.

    Warm-up is linear from 1/25. "onecycle" (Smith and Topin, https://arxiv.org/abs/1708.07120) rises along a cosine,
    during warm-up if there is one and for 30 % of all updates otherwise, then falls to almost 0. "plateau" is constant
    here: its drops come from `Plateau`. Beyond `total_updates` the last value stays.
    """
    update = min(update, max(total_updates - 1, 0))
    if schedule == "onecycle":
        rise = max(warmup_updates - 1, 1) if warmup_updates else max(ONECYCLE_RISE * total_updates - 1, 1)
        if update <= rise:
            return _cosine_between(WARMUP_START, 1.0, update / rise)
        return _cosine_between(1.0, ONECYCLE_END, (update - rise) / max(total_updates - 1 - rise, 1))
    if update < warmup_updates:
        return WARMUP_START + (1 - WARMUP_START) * update / warmup_updates
    if schedule == "cosine":
        return _cosine_between(1.0, 0.0, (update - warmup_updates) / max(total_updates - warmup_updates, 1))
    if schedule == "step":
        return float(step_factor ** (update // max(step_updates, 1)))
    return 1.0


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def lr_factors(
    schedule: Schedule, epochs: int, updates_per_epoch: int, warmup_epochs: float, step_epochs: int, step_factor: float
) -> Tensor:
    """Returns `lr_factor` for every update of a run, fp32 (epochs * updates_per_epoch,): a device can look its own
    learning rate up.
    """
    total = epochs * updates_per_epoch
    warmup = min(round(warmup_epochs * updates_per_epoch), total)
    return torch.tensor(
        [
            lr_factor(
                update,
                schedule=schedule,
                total_updates=total,
                warmup_updates=warmup,
                step_updates=step_epochs * updates_per_epoch,
                step_factor=step_factor,
            )
            for update in range(total)
        ],
        dtype=torch.float32,
    )


@dataclass
class Plateau:
    """Multiplies the learning rate by `factor` after more than `patience` epochs without a lower validation loss.

    The rule of torch.optim.lr_scheduler.ReduceLROnPlateau (mode min, relative threshold 1e-4). A NaN loss counts as no
    improvement.
    """

    patience: int
    factor: float
    scale: float = 1.0
    best: float = math.inf
    bad_epochs: int = 0

    def epoch_ended(self, val_loss: float) -> float:
        """Takes in one epoch's validation loss and returns the scale from now on."""
        if val_loss < self.best * (1 - 1e-4):
            self.best, self.bad_epochs = val_loss, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.scale, self.bad_epochs = self.scale * self.factor, 0
        return self.scale
