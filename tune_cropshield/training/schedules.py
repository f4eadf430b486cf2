"""Learning-rate schedules: a pure function of the number of applied updates, and plateau's drop between epochs.

A schedule of your own is a function like `cosine` below; its name goes into `schedule` of a settings file as
file.py:name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tune_cropshield.config import registry

WARMUP_START = 1 / 25  # of the peak; torch.optim.lr_scheduler.OneCycleLR's div_factor
ONECYCLE_RISE = 0.3  # share of all updates that rise, unless warm-up says otherwise; OneCycleLR's pct_start
ONECYCLE_END = 1 / (25 * 1e4)  # of the peak; OneCycleLR's div_factor * final_div_factor
ONECYCLE_SWING = 0.05  # of SGD's momentum; OneCycleLR's max_momentum and base_momentum are 0.95 and 0.85


@dataclass(frozen=True)
class Times:
    """The lengths that schedules go by, in updates."""

    total: int
    warmup: int = 0  # linear, from WARMUP_START
    step: int = 1  # schedule "step": after so many updates the rate is multiplied ...
    step_factor: float = 0.1  # ... by this


Schedule = Callable[[int, Times], float]  # (applied updates, lengths) -> what the peak learning rate is multiplied by


def onecycle(update: int, times: Times) -> float:
    """Rises along a cosine, then falls along one to almost 0.

    It rises during warm-up if there is one, for 30 % of all updates otherwise. SGD's momentum swings the other way
    meanwhile (see `momentum_factors`). Smith and Topin, https://arxiv.org/abs/1708.07120.
    """
    return _one_cycle(update, times, WARMUP_START, 1.0, ONECYCLE_END)


def _one_cycle(update: int, times: Times, start: float, turn: float, end: float) -> float:
    """Returns where a cycle stands that goes from `start` to `turn` and from there to `end`, along cosines."""
    rise = max(times.warmup - 1, 1) if times.warmup else max(ONECYCLE_RISE * times.total - 1, 1)
    if update <= rise:
        return _cosine_between(start, turn, update / rise)
    return _cosine_between(turn, end, (update - rise) / max(times.total - 1 - rise, 1))


def cosine(update: int, times: Times) -> float:
    """Falls to 0 along half a cosine."""
    if update < times.warmup:
        return warmup(update, times)
    return _cosine_between(1.0, 0.0, (update - times.warmup) / max(times.total - times.warmup, 1))


def step(update: int, times: Times) -> float:
    """Is multiplied by `step_factor` after every `step` updates."""
    if update < times.warmup:
        return warmup(update, times)
    return float(times.step_factor ** (update // max(times.step, 1)))


def constant(update: int, times: Times) -> float:
    """Stays at the peak; "plateau" too, whose drops come from `Plateau`."""
    return warmup(update, times) if update < times.warmup else 1.0


def warmup(update: int, times: Times) -> float:
    """Rises linearly to the peak."""
    return WARMUP_START + (1 - WARMUP_START) * update / times.warmup


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def lr_factors(
    name: str, epochs: int, updates_per_epoch: int, warmup_epochs: float, step_epochs: int, step_factor: float
) -> Tensor:
    """Returns the factor of every update of a run, fp32 (epochs * updates_per_epoch,).

    A device can look its own learning rate up in it; past the end the last value stays.
    """
    schedule: Schedule = registry.resolve("schedule", name)
    times = _times(epochs, updates_per_epoch, warmup_epochs, step_epochs, step_factor)
    return torch.tensor([schedule(update, times) for update in range(times.total)], dtype=torch.float32)


def momentum_factors(momentum: float, epochs: int, updates_per_epoch: int, warmup_epochs: float) -> Tensor:
    """Returns what SGD's `momentum` is multiplied by in every update under "onecycle", fp32 like `lr_factors`.

    It falls from momentum + 0.05 to momentum - 0.05 while the learning rate rises, and comes back while that falls: for
    0.9 the cycle of torch.optim.lr_scheduler.OneCycleLR, 0.95 to 0.85 to 0.95. The swing is smaller where it would
    leave the numbers from 0 to 1. AdamW's beta1 is not cycled, as OneCycleLR would do: the fused AdamW takes it as a
    number that a CUDA graph holds once and for all.
    """
    times = _times(epochs, updates_per_epoch, warmup_epochs)
    swing = min(ONECYCLE_SWING, momentum, (1 - momentum) / 2)
    high, low = momentum + swing, momentum - swing
    cycle = [_one_cycle(update, times, high, low, high) for update in range(times.total)]
    return torch.tensor(cycle, dtype=torch.float32) / momentum


def _times(
    epochs: int, updates_per_epoch: int, warmup_epochs: float, step_epochs: int = 1, step_factor: float = 0.1
) -> Times:
    total = epochs * updates_per_epoch
    warmup_updates = min(round(warmup_epochs * updates_per_epoch), total)
    return Times(total, warmup_updates, step_epochs * updates_per_epoch, step_factor)


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
