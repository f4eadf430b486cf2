"""The Ray Tune searcher that tells an Optuna study the truth.

Ray's own OptunaSearch tells it that pruned trials are complete, leaves trials with a NaN running for ever, and cannot
go on after a kill. Here COMPLETE, PRUNED and FAIL mean what Optuna means by them, and the journal alone says what has
been tried.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial
from ray.tune.search import Searcher

from tune_cropshield.errors import DiskFull
from tune_cropshield.search.endings import (
    FAILED,
    METRIC,
    PRUNED,
    WORKER_DIED,
    end_trial,
    has_metric,
    report_epoch,
    told_outcome,
)
from tune_cropshield.search.journal import quiet_optuna


class StudySearcher(Searcher):
    """Suggests what the study asks for, unfinished trials first, until `num_new` new trials have been started.

    make_config: (trial number, parameters) -> what the worker gets. was_pruned: whether the scheduler stopped this Ray
    trial.
    adopt: called with Ray's id and the number of an unfinished trial that goes on. disk_full: called once; nothing is
    written any more after it. A trial that ends for none of our reasons was interrupted: it stays running in the
    journal, and a resumed search goes on with it.
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
        disk_full: Callable[[DiskFull], object],
    ) -> None:
        super().__init__(metric=METRIC, mode="max")
        self._study, self._distributions = study, distributions
        self._make_config, self._was_pruned, self._adopt = make_config, was_pruned, adopt
        self._unfinished, self._num_new = deque(unfinished), num_new
        self._trials: dict[str, optuna.Trial] = {}  # by Ray's trial id
        self._reported: dict[str, dict[int, float]] = {}
        self._last_epoch: dict[str, int] = {}  # that this run has heard of
        self._disk_full, self._stopped = disk_full, False
        self._restarted: set[int] = set()  # trials whose worker died before they ran
        self._given_up: set[str] = set()  # what Ray called them then
        self._ran: set[str] = set()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Ends the search when the disk is full: an error would reach Ray, which takes it for its own."""
        try:
            with quiet_optuna():
                yield
        except DiskFull as error:
            self._stopped = True
            self._disk_full(error)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial's configuration, None while there is none but one under way may have to be started
        again, or FINISHED.
        """
        with self._writing():
            if not self._stopped and self._trials and not (self._unfinished or self._num_new > 0):
                return None
            if self._stopped or not (self._unfinished or self._num_new > 0):
                return str(Searcher.FINISHED)
            if self._unfinished:
                trial = optuna.Trial(self._study, self._unfinished.popleft()._trial_id)
                for name, distribution in self._distributions.items():  # a kill may have come between two parameters
                    trial._suggest(name, distribution)
                self._adopt(trial_id, trial.number)
            else:
                self._num_new -= 1
                trial = self._study.ask(self._distributions)
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            self._trials[trial_id] = trial
            self._reported[trial_id] = dict(frozen.intermediate_values)
            return self._make_config(trial.number, frozen.params)
        return str(Searcher.FINISHED)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports an epoch's best-so-far; one that is trained again after a death to the same value is written once.
        None and NaN are no results.
        """
        self._ran.add(trial_id)
        if self._stopped or trial_id not in self._trials or not has_metric(result):
            return
        epoch, value = int(result["epoch"]), float(result[METRIC])
        self._last_epoch[trial_id] = epoch
        if self._reported[trial_id].get(epoch) != value:
            with self._writing():
                report_epoch(self._study, self._trials[trial_id], epoch, value)
                self._reported[trial_id][epoch] = value

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the study how the trial ended. Ray leaves out the result that made it stop: it is reported here.

        error: its worker died. While a trial runs, Ray starts it again by itself; one whose worker dies before that is
        started again from here, once.
        """
        trial = self._trials.pop(trial_id, None)
        if trial is None or self._stopped:
            return
        result = result or {}
        best_so_far = self._reported.pop(trial_id)
        if error and trial_id not in self._ran and trial.number not in self._restarted:
            self._restarted.add(trial.number)
            self._given_up.add(trial_id)
            self._unfinished.append(self._study.get_trials(deepcopy=False)[trial.number])
            return
        if has_metric(result):
            self._last_epoch[trial_id] = int(result["epoch"])
            best_so_far[int(result["epoch"])] = float(result[METRIC])
        if (
            last := self._last_epoch.pop(trial_id, None)
        ) is not None:  # a killed run may have come further, to an accuracy that is gone
            best_so_far = {epoch: value if epoch <= last else best_so_far[last] for epoch, value in best_so_far.items()}
        outcome, reason = (FAILED, WORKER_DIED) if error else told_outcome(result)
        outcome = outcome or (PRUNED if self._was_pruned(trial_id) else None)
        if outcome is not None:
            with self._writing():
                end_trial(self._study, trial, outcome, reason, best_so_far)

    def starts_again(self, trial_id: str) -> bool:
        """Tells whether the trial of which Ray says that it failed is only waiting for another worker."""
        return trial_id in self._given_up

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray's snapshot of a search is never read."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Does nothing: the journal is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Does nothing: the journal is the state."""
