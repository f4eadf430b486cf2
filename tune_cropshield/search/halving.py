"""Asynchronous successive halving that remembers whom it stopped, and whose rungs can be built again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, TrialScheduler

from tune_cropshield.search.endings import METRIC, has_metric

BASELINE = 0  # the guide's setting is trained to its end, however bad: the gain is measured against it


class Halving(ASHAScheduler):
    """Ray's ASHA (Li et al., https://arxiv.org/abs/1810.05934) over epochs, on the best-so-far.

    `pruned` holds Ray's ids of the trials it stopped. A result without a finite metric is passed over: one NaN would
    otherwise make a rung's cut-off NaN and let everybody through. Trials that reach `epochs` end by themselves and are
    not counted as stopped.
    """

    def __init__(self, epochs: int, grace_epochs: int, reduction_factor: float) -> None:
        super().__init__(
            time_attr="epoch",
            metric=METRIC,
            mode="max",
            max_t=epochs,
            grace_period=grace_epochs,
            reduction_factor=reduction_factor,
        )
        self.pruned: set[str] = set()
        self._known_as: dict[str, str] = {}  # key of an unfinished trial -> under which its entries stand now

    def replay(self, key: str, values: Mapping[int, float]) -> None:
        """Enters what an earlier run of the search recorded, {epoch: best so far}, into the rungs; nobody is stopped by
        it.
        """
        recorded = _Recorded(key)
        for epoch in sorted(values):
            self._brackets[0].on_result(recorded, epoch, values[epoch])

    def adopt(self, trial_id: str, key: str) -> None:
        """Lets an unfinished trial that goes on as `trial_id`, perhaps again, keep the rung entries it had as `key`: it
        is not judged twice.
        """
        known_as = self._known_as.get(key, key)
        for _, recorded in self._brackets[0]._rungs:
            if known_as in recorded:
                recorded[trial_id] = recorded.pop(known_as)
        self._known_as[key] = trial_id

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        """Returns STOP for a trial below its rung's cut-off, else CONTINUE."""
        if not has_metric(result):
            return str(TrialScheduler.CONTINUE)
        for milestone, recorded in self._brackets[0]._rungs:
            if (
                milestone == result["epoch"] and trial.trial_id in recorded
            ):  # trained again after a kill, on a GPU perhaps to another value
                recorded[trial.trial_id] = result[METRIC]
        decision = str(super().on_trial_result(tune_controller, trial, result))
        if decision == TrialScheduler.STOP:
            if trial.config["number"] == BASELINE:
                return str(TrialScheduler.CONTINUE)
            self.pruned.add(trial.trial_id)
        return decision

    def on_trial_complete(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> None:
        """Takes in the last result of a trial that ended by itself."""
        if has_metric(result):
            super().on_trial_complete(tune_controller, trial, result)


class _Recorded:
    """What a rung needs to know of a trial of an earlier run."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id
