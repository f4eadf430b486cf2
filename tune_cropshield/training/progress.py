"""How far a trial has come, and what it reports after each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tune_cropshield.config.settings import TrialConfig, stops_early
from tune_cropshield.training.host_copies import copies_on_host
from tune_cropshield.training.metrics import EpochMetrics, Evaluation, metrics_of
from tune_cropshield.training.retries.out_of_memory import OutOfMemoryRetry
from tune_cropshield.training.run_folder import best_epoch
from tune_cropshield.training.trainer import Trainer


@dataclass(frozen=True)
class TrialReport:
    """What is known after an epoch."""

    metrics: EpochMetrics
    best: Mapping[str, Any]  # the line of the best epoch so far (`best_epoch`)
    finished: bool  # the last epoch, or early stopping
    oom_retries: tuple[OutOfMemoryRetry, ...] = ()  # empty in all but accidents
    notes: tuple[str, ...] = ()  # what else a person should know: sentences, each in every report after it
    part: int = 0  # of a trial in parts: which of them was trained, from 0

    @property
    def best_epoch(self) -> int:
        return int(self.best["epoch"])

    @property
    def best_value(self) -> float:
        """The goal's value there: what pruning, the sampler and the kept weights all go by; NaN where it has none."""
        return self.metrics.goal.value(self.best)

    @property
    def best_val_acc(self) -> float:
        """The accuracy there."""
        return float(self.best["val_acc"])


class Progress:
    """How far a trial has come, and its best epoch (see `best_epoch`)."""

    def __init__(self) -> None:
        self.metrics: EpochMetrics | None = None  # the last epoch's
        self.best_metrics: dict[str, Any] = {}
        self.best_weights: dict[str, Tensor] = {}
        self.best_predictions: dict[str, Tensor] = {}

    @property
    def epochs_done(self) -> int:
        return self.metrics.epoch if self.metrics is not None else 0

    def add(self, metrics: EpochMetrics, evaluation: Evaluation, trainer: Trainer) -> bool:
        """Takes in an epoch and tells whether it is the best so far; then a copy of its weights is kept, on the CPU."""
        self.metrics = metrics
        line = metrics.line()
        if best_epoch([self.best_metrics, line] if self.best_metrics else [line]) is not line:
            return False
        self.best_metrics = line
        self.best_predictions = {"predicted": evaluation.predicted_N, "probability": evaluation.probability_N}
        weights, self.best_weights = trainer.evaluated_model.state_dict(), {}  # the old ones' memory is taken again
        self.best_weights = dict(zip(weights, copies_on_host(list(weights.values())), strict=True))
        return True

    def finished(self, trial: TrialConfig) -> bool:
        """Tells whether no epoch is left: all are done, or early stopping has waited long enough."""
        done, best = self.epochs_done, int(self.best_metrics.get("epoch", 0))
        return done >= trial.epochs or stops_early(trial.early_stopping, trial.unfreeze_epochs, done, best)

    def report(self, trial: TrialConfig, retries: list[OutOfMemoryRetry], notes: list[str]) -> TrialReport:
        """Returns what is known after the last epoch."""
        assert self.metrics is not None
        return TrialReport(self.metrics, self.best_metrics, self.finished(trial), tuple(retries), tuple(notes))

    def state(self) -> dict[str, Any]:
        """Returns what `load_state` needs."""
        assert self.metrics is not None
        return {
            "metrics": self.metrics.line(),
            "best_metrics": self.best_metrics,
            "best_weights": self.best_weights,
            "best_predictions": self.best_predictions,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what `state` returned."""
        self.metrics = metrics_of(state["metrics"])
        self.best_metrics, self.best_weights = state["best_metrics"], state["best_weights"]
        self.best_predictions = state["best_predictions"]
