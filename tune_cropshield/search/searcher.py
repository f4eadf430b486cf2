"""The Ray Tune searcher that tells an Optuna study the truth.

Ray's own OptunaSearch tells it that pruned trials are complete, leaves trials with a NaN running for ever, and cannot
go on after a kill. Here COMPLETE, PRUNED and FAIL mean what Optuna means by them, and the journal alone says what has
been tried.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import optuna
from ray.tune.search import Searcher

from tune_cropshield.config.registry import own_code
from tune_cropshield.errors import ConfigError, DiskFull
from tune_cropshield.search.context import Search
from tune_cropshield.search.endings import (
    FAILED,
    METRIC,
    PRUNED,
    WORKER_DIED,
    end_by_hand,
    end_trial,
    has_metric,
    outcome_of,
    report_epoch,
    stop_trial,
)
from tune_cropshield.search.folder import sync_ended_trial
from tune_cropshield.search.journal import quiet_optuna


class StudySearcher(Searcher):
    """Suggests what the study asks for, unfinished trials first, until the search has all its trials.

    A trial that ends for none of our reasons was interrupted: it stays running in the journal, and a resumed search
    goes on with it. On a full disk the search is ended, and nothing is written any more.
    """

    def __init__(self, search: Search) -> None:
        super().__init__(metric=METRIC, mode="max")  # Ray compares nothing by it
        self._search, self._study = search, search.study
        self._steering = search.steering
        self._trials: dict[str, optuna.Trial] = {}  # by Ray's trial id
        self._reported: dict[str, dict[int, float]] = {}
        self._last_epoch: dict[str, int] = {}  # that this run has heard of
        self._stopped = False
        self._restarted: set[int] = set()  # trials whose worker died before they ran
        self._given_up: set[str] = set()  # what Ray called them then
        self._worker_errors: dict[str, str] = {}
        self._ran: set[str] = set()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Ends the search when the disk is full: an error would reach Ray, which takes it for its own."""
        try:
            with quiet_optuna():
                yield
        except DiskFull as error:
            self._stopped = True
            self._search.early_end.stop_for_space(error)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Returns the next trial's configuration, or FINISHED.

        None while there is no other trial, but one under way may bring one forth, or have to be started again.
        """
        if self._stopped:
            return str(Searcher.FINISHED)
        with self._writing():
            try:
                with own_code("sampler", self._search.space.search.sampler):
                    trial = self._steering.next_trial()
            except ConfigError as error:
                self._search.early_end.fail(str(error))
                return str(Searcher.FINISHED)
            if trial is None:
                return None if self._trials else str(Searcher.FINISHED)
            self._search.pruned.discard(trial.number)
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            self._trials[trial_id] = trial
            self._reported[trial_id] = dict(frozen.intermediate_values)
            return self._worker_config(trial.number, frozen.params)
        return str(Searcher.FINISHED)  # the disk is full

    def _worker_config(self, number: int, parameters: dict[str, Any]) -> dict[str, Any]:
        """Returns what the trial's worker gets, and writes the trial's settings for TensorBoard."""
        settings = self._search.run_config(parameters)
        parts = [part.model_dump() for part in self._search.space.search.parts_of(settings)]
        run = settings.model_dump()
        self._search.hparams.trial_started(number, {**run["data"], **run["trial"]})
        return {
            "number": number,
            "folder": str(self._search.trial_folder(number)),
            "run": run,
            "parts": parts[1:] and parts,
            "checkpoint_after": self._search.space.search.pruning_steps,
        }

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
            self._steering.try_again(trial.number)
            return
        if has_metric(result):
            self._last_epoch[trial_id] = int(result["epoch"])
            best_so_far[int(result["epoch"])] = float(result[METRIC])
        last = self._last_epoch.pop(trial_id, None)
        if last is not None:  # a killed run may have come further, to an accuracy that is gone
            best_so_far = {epoch: value if epoch <= last else best_so_far[last] for epoch, value in best_so_far.items()}
        outcome, reason = (
            (FAILED, self.worker_error(trial_id)) if error else outcome_of(result, self._search.space.goal)
        )
        by_hand = outcome is None and trial.number in self._search.asked_to_stop
        if outcome is None and trial.number in self._search.pruned:
            outcome = PRUNED
        if outcome is not None or by_hand:
            with self._writing():
                # Before the journal calls it ended and its checkpoints go: after a power cut its weights are there.
                sync_ended_trial(self._search.folder, trial.number)
                if by_hand:
                    end_by_hand(self._study, trial, best_so_far)
                elif outcome == PRUNED:
                    stop_trial(self._study, trial, best_so_far)
                elif outcome is not None:
                    end_trial(self._study, trial, outcome, reason, best_so_far)

    def note_worker_error(self, trial_id: str, why: str | None) -> None:
        """Takes in why the worker of a trial died, None where nobody knows."""
        self._worker_errors[trial_id] = f"{WORKER_DIED}: {why}" if why else WORKER_DIED

    def worker_error(self, trial_id: str) -> str:
        """Returns a sentence on the last death of a trial's worker."""
        return self._worker_errors.get(trial_id, WORKER_DIED)

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
