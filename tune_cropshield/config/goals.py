"""The goal of a training or a search: the metric that decides which epoch and which trial is better.

Everything that compares goes by a `Goal`: the best epoch and the weights that are kept, early stopping, pruning, the
sampler, the winner, the final training, the report. Settings name it (`metric`), a line of metrics.jsonl tells which
one its training had, and a search's journal which one its trials have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tune_cropshield.config import registry
from tune_cropshield.config.units import four_digits

METRIC, HIGHER_IS_BETTER = "metric", "higher_is_better"  # in a line of metrics.jsonl; left out for val_acc
SHARES = ("val_acc", "val_macro_f1", "val_balanced_acc", "val_auc")  # from 0 to 1: differences are told in points

OF_CLASSES = ("val_acc", "val_macro_f1", "val_balanced_acc")  # what true and predicted classes alone decide


@dataclass(frozen=True)
class Goal:
    """A metric to judge by.

    name: as files and tables call it; of an own metric, that of its function.
    """

    name: str = "val_acc"
    higher_is_better: bool = True

    @property
    def is_accuracy(self) -> bool:
        """Whether it is a share of photographs, so that what is known of such shares holds: intervals, tests."""
        return self.name == "val_acc"

    @property
    def called(self) -> str:
        """What it is called inside a sentence."""
        return "accuracy" if self.is_accuracy else self.name

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1, so that a difference is told in points."""
        return self.name in SHARES

    def value(self, line: Mapping[str, Any]) -> float:
        """Returns its value in a line of metrics; NaN where the line has none."""
        value = line.get(self.name)
        return math.nan if value is None else float(value)

    def rank(self, value: float) -> float:
        """Returns a number that is the higher the better `value` is; -inf for what is not finite, which never wins."""
        if not math.isfinite(value):
            return -math.inf
        return value if self.higher_is_better else -value

    def rank_of(self, line: Mapping[str, Any]) -> float:
        """Returns the `rank` of a line of metrics."""
        return self.rank(self.value(line))

    def gain(self, value: float, other: float) -> float:
        """Returns by how much `value` is better than `other`, below 0 where it is worse."""
        return value - other if self.higher_is_better else other - value

    def step(self, photographs: int) -> float:
        """Returns the smallest difference that so many photographs can show, as near as it can be told.

        A share changes by about one photograph; what is no share changes by as little as a number can.
        """
        return 1 / photographs if self.is_share else 1e-9

    def text(self, value: float | None) -> str:
        """Returns a value as people read it, a dash for None and NaN."""
        return four_digits(value) if self.is_share or value is None or math.isnan(value) else f"{value:.4f}"

    def named(self, value: float | None) -> str:
        """Returns a value with its name before it: "val_acc 0.9167"."""
        return f"{self.name} {self.text(value)}"

    def marks(self) -> dict[str, Any]:
        """Returns what a line of metrics says of the goal that it is judged by."""
        if self == VAL_ACC:
            return {}
        return {METRIC: self.name} | ({} if self.higher_is_better else {HIGHER_IS_BETTER: False})


VAL_ACC = Goal()
GOALS = {name: Goal(name, higher_is_better=name != "val_loss") for name in registry.METRICS}


def goal_named(metric: str) -> Goal:
    """Returns the goal that a setting names. A user's own is loaded: it may say that lower is better.

    Raises ConfigError when it cannot be loaded.
    """
    if not registry.is_own(metric):
        return GOALS[metric]
    function = registry.resolve("metric", metric)
    return Goal(metric.rpartition(":")[2], bool(getattr(function, HIGHER_IS_BETTER, True)))


def goal_of(lines: Sequence[Mapping[str, Any]]) -> Goal:
    """Returns the goal that the epochs of metrics.jsonl were judged by; of earlier versions' it is val_acc."""
    first: Mapping[str, Any] = lines[0] if lines else {}
    return Goal(first.get(METRIC, VAL_ACC.name), first.get(HIGHER_IS_BETTER, True))
