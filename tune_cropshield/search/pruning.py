"""Pruning rules: which trials end before their last epoch.

A rule is asked once for every epoch of every trial. What it was told in an earlier run of a search it is told again
from the journal when the search goes on, so that it needs no file of its own.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Protocol

from tune_cropshield.config.registry import own_code, resolve
from tune_cropshield.config.space import SearchSettings
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.halving import SuccessiveHalving


class PruningRule(Protocol):
    """What decides which trials are stopped.

    A rule may have two more methods, as `SuccessiveHalving` has: `goes_on(stopped)` and `goes_on_at_the_end(stopped,
    winner)`, which name a trial that was stopped and should go on after all, or None.
    """

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        """Takes in a trial's result after an epoch, and returns whether the trial should stop.

        Args:
            number: the trial's number.
            epoch: counted from 1. A trial that was killed may train an epoch again, on a GPU perhaps to another value.
            value: the best that the trial has come to up to this epoch, by the search's metric; the higher the better:
                where a lower metric is better, it is minus the metric. Always finite.
            loss: the validation loss after this epoch; may be infinite or not a number.
        """
        ...


class NoPruning:
    """Lets every trial run to its last epoch."""

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        """Returns False."""
        return False


class RayAsha:
    """Ray Tune's own ASHAScheduler: it compares a trial with those before it, and never goes on with one it stopped."""

    def __init__(self, epochs: int, grace_epochs: int, reduction_factor: float) -> None:
        """Takes what Ray calls max_t, grace_period and reduction_factor."""
        from ray.tune.schedulers import AsyncHyperBandScheduler  # half a second, and only for who asks for it

        self._scheduler = AsyncHyperBandScheduler(
            "epoch", "value", "max", max_t=epochs, grace_period=grace_epochs, reduction_factor=reduction_factor
        )
        self._epochs = epochs
        self._known: set[int] = set()

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        """Returns what Ray decides. A trial that has come to its end is not stopped: it has ended by itself."""
        trial: Any = SimpleNamespace(trial_id=str(number))
        if number not in self._known:
            self._known.add(number)
            self._scheduler.on_trial_add(None, trial)
        decision = self._scheduler.on_trial_result(None, trial, {"epoch": epoch, "value": value})
        return decision == self._scheduler.STOP and epoch < self._epochs


def asha(epochs: int, grace_epochs: int, reduction_factor: float, parts: int = 1) -> PruningRule:
    """Returns the rule that `pruning = "asha"` stands for."""
    return SuccessiveHalving(epochs, grace_epochs, reduction_factor, parts)


def ray_asha(epochs: int, grace_epochs: int, reduction_factor: float) -> PruningRule:
    """Returns the rule that `pruning = "ray-asha"` stands for."""
    return RayAsha(epochs, grace_epochs, reduction_factor)


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
            **lengths, grace_epochs=settings.first_step, reduction_factor=settings.reduction_factor
        )
    if not callable(getattr(rule, "judge", None)):
        raise ConfigError([f"pruning {settings.pruning!r} returned {rule!r}, which has no method judge"])
    return rule
