"""Pruning rules: which trials end before their last epoch.

A rule is asked once for every epoch of every trial. What it was told in an earlier run of a search it is told again
from the journal when the search goes on, so that it needs no file of its own.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tune_cropshield.config.registry import own_code, resolve
from tune_cropshield.config.space import SearchSettings, pruning_epochs
from tune_cropshield.errors import ConfigError


class PruningRule(Protocol):
    """What decides which trials are stopped."""

    def judge(self, number: int, epoch: int, value: float) -> bool:
        """Takes in a trial's result after an epoch, and returns whether the trial should stop.

        Args:
            number: the trial's number. Trial 0, the reference setting, goes on whatever is returned.
            epoch: counted from 1. A trial that was killed may train an epoch again, on a GPU perhaps to another value.
            value: the trial's highest accuracy up to this epoch; always finite. Of a trial in parts, the mean of those
                that have ended, see `best_so_far`.
        """
        ...


class SuccessiveHalving:
    """Asynchronous successive halving (ASHA; Li et al., https://arxiv.org/abs/1810.05934), one bracket.

    Trials are compared at a few pruning steps: at each, a trial stops when its value is below the quantile
    `1 - 1 / reduction_factor` of the values that came before it there. The decisions are those of Ray Tune's
    ASHAScheduler.
    """

    def __init__(self, epochs: int, grace_epochs: int, reduction_factor: float, parts: int = 1) -> None:
        """Takes the epochs of a trial that is never pruned, those before which none is, and the paper's eta.

        parts: of a trial; `epochs` are then those of each, and trials are compared at the ends of parts too.
        """
        self._percentile = (1 - 1 / reduction_factor) * 100
        steps = pruning_epochs(epochs, grace_epochs, reduction_factor, parts)
        self._values: dict[int, dict[int, float]] = {step: {} for step in reversed(steps)}  # step -> trial -> value

    def judge(self, number: int, epoch: int, value: float) -> bool:
        """Returns whether the trial is among the worse at its pruning step.

        That is the highest one that it has reached and was not judged at.
        """
        if number in self._values.get(epoch, {}):
            self._values[epoch][number] = value  # trained again: others are measured by what it came to now
        for step, values in self._values.items():
            if epoch >= step and number not in values:
                cutoff = np.percentile(list(values.values()), self._percentile) if values else value
                values[number] = value
                return bool(value < cutoff)
        return False


class NoPruning:
    """Lets every trial run to its last epoch."""

    def judge(self, number: int, epoch: int, value: float) -> bool:
        """Returns False."""
        return False


def asha(epochs: int, grace_epochs: int, reduction_factor: float, parts: int = 1) -> PruningRule:
    """Returns the rule that `pruning = "asha"` stands for."""
    return SuccessiveHalving(epochs, grace_epochs, reduction_factor, parts)


def none(epochs: int, grace_epochs: int, reduction_factor: float) -> PruningRule:
    """Returns the rule that `pruning = "none"` stands for."""
    return NoPruning()


def build_pruning(settings: SearchSettings) -> PruningRule:
    """Returns the rule that `settings.pruning` names.

    A user's own is a function or class like `asha`: it takes epochs, grace_epochs and reduction_factor, and returns a
    PruningRule. Where trials are in parts, it is given the epochs of all of them.

    Raises:
        ConfigError: it cannot be loaded, raises, or returns something else.
    """
    make = resolve("pruning", settings.pruning)
    lengths: dict[str, Any] = {"epochs": settings.trial_epochs}
    if settings.pruning == "asha" and settings.num_parts > 1:
        lengths = {"epochs": settings.epochs, "parts": settings.num_parts}
    with own_code("pruning", settings.pruning):
        rule: PruningRule = make(
            **lengths, grace_epochs=settings.grace_epochs, reduction_factor=settings.reduction_factor
        )
    if not callable(getattr(rule, "judge", None)):
        raise ConfigError([f"pruning {settings.pruning!r} returned {rule!r}, which has no method judge"])
    return rule
