"""The Ray Tune searcher that tells an Optuna study the truth.

Ray's own OptunaSearch tells it that pruned trials are complete, leaves trials with a NaN running for ever, and cannot go on after a kill. Here
COMPLETE, PRUNED and FAIL mean what Optuna means by them, and the journal alone says what has been tried.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from tune_cropshield.search.journal import quiet_optuna
from tune_cropshield.search.outcomes import DIVERGED, FAILED, FINISHED, METRIC, OUT_OF_MEMORY, OUTCOME, PRUNED, REASON

MEMORY_CONSTRAINT = "memory"


class StudySearcher(Searcher):
    """Suggests what the study asks for, unfinished trials first, until `num_new` new trials have been started.

    make_config: (trial number, parameters) -> what the worker gets. was_pruned: whether the scheduler stopped this Ray trial.
    adopt: called with Ray's id and the number of an unfinished trial that goes on.
    A trial that ends for none of our reasons was interrupted: it stays running in the journal, and a resumed search goes on with it.
    """

    def __init__(
        self,
        study: optuna.Study,
        distributions: dict[str, BaseDistribution],
        make_config: Callable[[int, dict[str, Any]], dict[str, Any]],
        was_pruned: Callable[[str], bool],
        adopt: Callable[[str, int], object],
        unfinished: Iterable[FrozenTrial],
        num_new: int,
    ) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._study, self._distributions = study, distributions
        self._make_config, self._was_pruned, self._adopt = make_config, was_pruned, adopt
        self._unfinished, self._num_new = deque(unfinished), num_new
        self._trials: dict[str, optuna.Trial] = {}  # by Ray's trial id
        self._reported: dict[str, set[int]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Returns the next trial's configuration, or FINISHED."""
        with quiet_optuna():
            if self._unfinished:
                trial = optuna.Trial(self._study, self._unfinished.popleft()._trial_id)
                self._adopt(trial_id, trial.number)
            elif self._num_new > 0:
                self._num_new -= 1
                trial = self._study.ask(self._distributions)
            else:
                return str(Searcher.FINISHED)
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
        self._trials[trial_id] = trial
        self._reported[trial_id] = set(frozen.intermediate_values)
        return self._make_config(trial.number, frozen.params)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports an epoch's best-so-far; an epoch trained again after a worker's death is reported once. None and NaN are no results."""
        value = result.get(METRIC)
        if trial_id not in self._trials or value is None or not math.isfinite(value):
            return
        epoch = int(result["epoch"])
        if epoch not in self._reported[trial_id]:
            self._trials[trial_id].report(value, epoch)
            self._reported[trial_id].add(epoch)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study how the trial ended. Ray leaves out the result that made it stop: it is reported here."""
        trial = self._trials.pop(trial_id, None)
        if trial is None:
            return
        result = result or {}
        self._trials[trial_id] = trial
        self.on_trial_result(trial_id, result)
        del self._trials[trial_id]
        del self._reported[trial_id]
        outcome = FAILED if error else result.get(OUTCOME) or (PRUNED if self._was_pruned(trial_id) else None)
        if outcome is None:
            return
        trial.set_user_attr(OUTCOME, outcome)
        if result.get(REASON):
            trial.set_user_attr(REASON, result[REASON])
        elif error:
            trial.set_user_attr(REASON, "its worker process died")
        with quiet_optuna():
            trial.set_constraint(MEMORY_CONSTRAINT, 1.0 if outcome == OUT_OF_MEMORY else 0.0)  # above 0 means that it did not fit
            if outcome == FINISHED:
                self._study.tell(trial, result[METRIC])
            elif outcome in (PRUNED, DIVERGED, OUT_OF_MEMORY):
                # A trial that diverged before its first epoch has no value: Optuna then takes it as the worst there is, and learns from it.
                self._study.tell(trial, state=TrialState.PRUNED)
            else:
                self._study.tell(trial, state=TrialState.FAIL)

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray's snapshot of a search is never read."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the journal is the state."""
