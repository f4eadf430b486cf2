"""Ray Tune's events, handed to the view, to TensorBoard's HParams tab and to whoever keeps the table of trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial

from tune_cropshield.search.endings import (
    DISK_FULL,
    FAILED,
    LADDER_STEPS,
    NOTES,
    PRUNED,
    WORKER_DIED,
    has_metric,
    told_outcome,
)
from tune_cropshield.search.hparams import Board
from tune_cropshield.search.views.view import SearchView, TrialLine


class ViewCallback(Callback):
    """Tells `view` what happens. describe: (number) -> the line of a trial; trial_over: called with the number of each
    trial that ended;
    worker_died: with the reason, where a trial failed of that.

    A trial whose worker died and that goes on elsewhere (starts_again) has not ended. was_pruned tells a pruned trial
    from an interrupted one.
    """

    def __init__(
        self,
        view: SearchView,
        describe: Callable[[int], TrialLine],
        was_pruned: Callable[[str], bool],
        starts_again: Callable[[str], bool],
        trial_over: Callable[[int], object],
        worker_died: Callable[[str], object],
    ) -> None:
        self._view, self._describe, self._was_pruned, self._trial_over = view, describe, was_pruned, trial_over
        self._starts_again, self._worker_died = starts_again, worker_died
        self._ladder_steps: dict[int, int] = {}
        self._told: dict[int, set[str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray pickles a search's parts into a snapshot that is never read, and a terminal cannot be
        pickled.
        """
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        number = trial.config["number"]
        if number not in self._view.running:
            self._view.trial_started(self._describe(number))

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        if has_metric(result):
            number = trial.config["number"]
            self._view.epoch_done(number, result)
            told = self._told.setdefault(number, set())
            for note in result.get(NOTES, ()):
                if note not in told:
                    self._view.note(f"t{number:03d}: {note}")
                    told.add(note)
            if result.get(LADDER_STEPS, 0) > self._ladder_steps.get(number, 0):
                self._ladder_steps[number] = result[LADDER_STEPS]
                self._view.note(
                    f"t{number:03d} ran out of memory: it goes on with a smaller micro-batch and the same "
                    "effective batch"
                )

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        result = trial.last_result or {}
        self._end(
            trial, outcome_of(trial, self._was_pruned) or "stopped", told_outcome(result)[1] or result.get(DISK_FULL)
        )

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._starts_again(trial.trial_id):
            self._worker_died(WORKER_DIED)
            self._end(trial, FAILED, WORKER_DIED)

    def _end(self, trial: Trial, outcome: str, reason: str | None) -> None:
        number = trial.config["number"]
        if number in self._view.running:
            self._view.trial_ended(number, outcome, reason)
        self._trial_over(number)


class BoardCallback(Callback):
    """Tells `board` how trials end; one that was interrupted, or starts again elsewhere, has not ended."""

    def __init__(self, board: Board, was_pruned: Callable[[str], bool], starts_again: Callable[[str], bool]) -> None:
        self._board, self._was_pruned, self._starts_again = board, was_pruned, starts_again

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing, as in `ViewCallback`."""
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if (outcome := outcome_of(trial, self._was_pruned)) is not None:
            self._board.trial_ended(trial.config["number"], outcome)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        if not self._starts_again(trial.trial_id):
            self._board.trial_ended(trial.config["number"], FAILED)


def outcome_of(trial: Trial, was_pruned: Callable[[str], bool]) -> str | None:
    """Returns how a trial that Ray calls complete ended, None where it was only interrupted."""
    outcome, _ = told_outcome(trial.last_result or {})
    return outcome or (PRUNED if was_pruned(trial.trial_id) else None)
