"""The search's one source of truth: an Optuna study in a journal file, which every line is flushed to."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.config.goals import VAL_ACC, Goal
from tune_cropshield.config.reference import REFERENCE
from tune_cropshield.errors import UserError
from tune_cropshield.files import raising_disk_full

JOURNAL = "study.journal"
STUDY_NAME = "search"
# User attribute of a study whose trials are in parts: the epochs of one. Epoch e of part p (from 0) is then reported as
# epoch p * part_epochs + e.
PART_EPOCHS = "part_epochs"
METRIC = "metric"  # user attribute of a study: the name of what its trials are judged by, where it is not val_acc
NO_BASELINE = "no_baseline"  # user attribute of a study whose trial 0 is not the reference setting: True
STOPPED_AFTER = "stopped_after"  # user attribute of a trial: the epoch that a pruning step stopped it after, or None


def open_study(search_dir: Path, sampler: BaseSampler | None = None, goal: Goal = VAL_ACC) -> optuna.Study:
    """Returns the study in `search_dir`, created if there is none.

    A last line that a kill cut short is removed: it was never in force.

    Of one that is created, lower values are better where `goal` says so; `note_goal` then keeps its name.

    The caller holds the search folder's lock, so a journal lock that is still there belongs to a dead process.
    """
    path = search_dir / JOURNAL
    _drop_half_line(path)
    if path.exists() and path.stat().st_size:
        read_study(search_dir)  # Optuna would begin a new study after a damaged line
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    storage = JournalStorage(_Journal(path))
    with quiet_optuna():
        return optuna.create_study(
            storage=storage,
            study_name=STUDY_NAME,
            direction="maximize" if goal.higher_is_better else "minimize",
            sampler=sampler,
            load_if_exists=True,
        )


def read_study(search_dir: Path) -> optuna.Study:
    """Returns the study in `search_dir` without touching any file; half a line at the journal's end is passed over.

    Raises UserError when there is no search, or its journal is damaged.
    """
    path = search_dir / JOURNAL
    if not path.is_file():
        raise UserError(f"{search_dir} holds no search ({JOURNAL} is missing)")
    try:
        with quiet_optuna():
            storage = JournalStorage(_Journal(path))
            return optuna.load_study(study_name=STUDY_NAME, storage=storage)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        # What Optuna makes of a damaged line, or of none.
        raise UserError(f"{path} is damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


class _Journal(JournalFileBackend):
    """Lines that are appended whole or not at all. Raises DiskFull."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), JournalFileOpenLock(str(path)))  # the symlink lock needs privileges on Windows
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with raising_disk_full(self._path):
            try:
                super().append_logs(logs)
            except OSError:
                _drop_half_line(self._path)  # the next line would otherwise stand behind it
                raise


def _drop_half_line(path: Path) -> None:
    try:
        with open(path, "rb+") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole < len(content):
                file.truncate(whole)
                os.fsync(file.fileno())
    except FileNotFoundError:
        pass


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Inside: Optuna logs only errors, and its experimental features do not warn."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def note_goal(study: optuna.Study, goal: Goal) -> None:
    """Writes down what the trials of a study are judged by; a study without a word of it is judged by val_acc."""
    if goal.name != VAL_ACC.name and METRIC not in study.user_attrs:
        study.set_user_attr(METRIC, goal.name)


def study_goal(study: optuna.Study) -> Goal:
    """Returns what the trials of a study are judged by."""
    return Goal(study.user_attrs.get(METRIC, VAL_ACC.name), study.direction != StudyDirection.MINIMIZE)


def is_stopped(trial: FrozenTrial) -> bool:
    """Tells whether a pruning step has stopped a trial that may be continued while its search lasts.

    To Optuna it runs: what it calls pruned can never be continued. When the search ends, it becomes PRUNED.
    """
    return trial.state == TrialState.RUNNING and trial.user_attrs.get(STOPPED_AFTER) is not None


def reference_trial(study: optuna.Study) -> FrozenTrial | None:
    """Returns the trial with the reference setting; None where none was started, or the search was to do without."""
    first = study.get_trials(deepcopy=False)[: REFERENCE + 1]
    return first[0] if first and first[0].state != TrialState.WAITING and NO_BASELINE not in study.user_attrs else None


def unfinished(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that were being trained when the search stopped, in their order."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if not is_stopped(trial)]


def stopped(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that were stopped at a pruning step and may be continued."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if is_stopped(trial)]


def started(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that were started, finished or not, in their order; those only enqueued do not count."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]


def num_started(study: optuna.Study) -> int:
    """Returns how many trials were started."""
    return len(started(study))


def best_trial(study: optuna.Study) -> FrozenTrial:
    """Returns the first of `best_first`. Raises UserError when no trial has a result."""
    ranked = best_first(study)
    if not ranked:
        raise UserError("no trial of this search has a result yet")
    return ranked[0]


def best_first(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that have a result, the one whose best so far is best by the goal first; equals by number.

    A trial that was pruned or interrupted counts with what it had reached: its weights are there too. A failed one does
    not count. Where trials are in parts, those come first that have come through the most of them: the first part's
    value alone may be luck.
    """
    goal = study_goal(study)
    epochs = study.user_attrs.get(PART_EPOCHS)
    with_result = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.intermediate_values and trial.state != TrialState.FAIL
    ]

    def rank(trial: FrozenTrial) -> tuple[int, float, int]:
        parts_ended = max(trial.intermediate_values) // epochs if epochs is not None else 0
        return -parts_ended, -goal.rank(best_value(trial)), trial.number

    return sorted(with_result, key=rank)


def best_value(trial: FrozenTrial) -> float:
    """Returns what a trial is worth by its last epoch: the goal's best value so far, NaN before its first epoch.

    Of a trial in parts, it is the mean over the parts that have ended, which may fall from one to the next.
    """
    values = trial.intermediate_values
    return values[max(values)] if values else math.nan
