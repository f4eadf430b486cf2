"""What Ray Tune asks and tells while a search runs: its scheduler, its stopper and its callback.

Each hands on to the parts of the search that know no Ray.
"""

from __future__ import annotations

import math
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from tune_cropshield.config.registry import own_code
from tune_cropshield.errors import ConfigError, DiskFull
from tune_cropshield.search.context import Search
from tune_cropshield.search.endings import (
    DISK_FULL,
    FAILED,
    MEMORY_RETRIES,
    METRIC,
    NOTES,
    OUTCOME,
    PRUNED,
    REASON,
    STOPPED_BY_HAND,
    has_metric,
    outcome_of,
)
from tune_cropshield.search.ray_private import error_text
from tune_cropshield.search.ray_runtime import RayRuntime
from tune_cropshield.search.searcher import StudySearcher
from tune_cropshield.search.stopping import obey_requests
from tune_cropshield.search.trial_end import after_trial


class PruningScheduler(FIFOScheduler):
    """Runs trials in their order and stops those that the search's pruning rule stops, or somebody who asks for it.

    A result without a finite value of the goal is passed over. The last result of a trial that ends by itself is taken
    in, and nobody is stopped by it.
    """

    def __init__(self, search: Search, searcher: StudySearcher, ray: RayRuntime) -> None:
        super().__init__()
        self._search, self._searcher, self._ray = search, searcher, ray

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Returns STOP or CONTINUE."""
        number, pruned = trial.config["number"], self._should_stop(trial, result)
        if not pruned and number not in self._search.asked_to_stop:
            return str(TrialScheduler.CONTINUE)
        self._search.pruned.add(number)
        return str(TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Takes in the last result of a trial that ended by itself."""
        self._should_stop(trial, result)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Keeps why a worker died, which Ray tells the scheduler first: the searcher is told only that it did."""
        self._searcher.note_worker_error(trial.trial_id, self._ray.why_it_died(error_text(trial)))

    def _should_stop(self, trial: Trial, result: dict[str, Any]) -> bool:
        if not has_metric(result):
            return False
        number = trial.config["number"]
        try:
            with own_code("pruning", self._search.space.search.pruning):
                loss = float(result.get("val_loss", math.inf))
                return self._search.steering.judge(number, int(result["epoch"]), float(result[METRIC]), loss)
        except ConfigError as error:
            self._search.early_end.fail(str(error))
            return False


class SearchStopper(tune.Stopper):
    """Ends the search when its `early_end` is due; never stops a single trial."""

    def __init__(self, search: Search) -> None:
        self._search, self._early_end, self._view = search, search.early_end, search.view
        self._told = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Looks at a result, and returns False."""
        if DISK_FULL in result:
            self._early_end.stop_for_space(DiskFull(result[DISK_FULL]))
        elif result.get("done"):
            self._early_end.trial_ended(result.get(REASON) if result.get(OUTCOME) == FAILED else None)
        return False

    def stop_all(self) -> bool:
        """Tells whether the search should end now, and says so where somebody has asked for it.

        Ray asks often, also while epochs last: here it is looked for what other processes ask.
        """
        obey_requests(self._search)
        if self._early_end.interrupted and not self._told:
            self._told = True
            self._view.note(
                "stopping: running trials get 10 s to finish their epoch; an epoch cut off is trained again on "
                "--resume (press again to stop at once)"
            )
        return self._early_end.is_due()

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: a view of a terminal cannot be pickled, and Ray's snapshot of a search is never read."""
        return {}


class SearchCallback(tune.Callback):
    """Shows the search's view what its trials do, and lets `after_trial` follow on each trial's end."""

    def __init__(self, search: Search, searcher: StudySearcher) -> None:
        self._search, self._searcher = search, searcher
        self._memory_retries: dict[int, int] = {}  # by trial, as far as the view was told
        self._told_notes: dict[int, set[str]] = {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        if number not in self._search.view.running:
            self._search.view.trial_started(self._search.line_at_start(number))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if not has_metric(result):
            return
        self._search.early_end.worker_began()
        view, number = self._search.view, trial.config["number"]
        view.epoch_done(number, result)
        told = self._told_notes.setdefault(number, set())
        for note in result.get(NOTES, ()):
            if note not in told:
                view.note(f"t{number:03d}: {note}")
                told.add(note)
        if result.get(MEMORY_RETRIES, 0) > self._memory_retries.get(number, 0):
            self._memory_retries[number] = result[MEMORY_RETRIES]
            view.note(
                f"t{number:03d} ran out of memory: it continues with a smaller micro-batch and the same effective batch"
            )

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        result, number = trial.last_result or {}, trial.config["number"]
        outcome, reason = outcome_of(result, self._search.space.goal)
        if outcome is None and number in self._search.asked_to_stop:
            outcome, reason = PRUNED, STOPPED_BY_HAND
        elif outcome is None and number in self._search.pruned:
            outcome = PRUNED
        after_trial(self._search, number, outcome, reason or result.get(DISK_FULL))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number, reason = trial.config["number"], self._searcher.worker_error(trial.trial_id)
        self._search.early_end.worker_died(reason)
        if self._searcher.starts_again(trial.trial_id):
            self._search.view.note(f"t{number:03d} starts again: {reason}")
            return
        self._search.early_end.trial_ended(reason)
        after_trial(self._search, number, FAILED, reason)
