"""A finished or unfinished search, read back."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.errors import UserError
from tune_cropshield.search.folder import best_value
from tune_cropshield.search.journal import JOURNAL, STUDY_NAME, quiet_optuna


def read_study(search_dir: Path) -> optuna.Study:
    """Returns the study in `search_dir` without touching any file; half a line at the journal's end is passed over.

    Raises UserError when there is no search, or its journal is damaged.
    """
    path = search_dir / JOURNAL
    if not path.is_file():
        raise UserError(f"{search_dir} holds no search ({JOURNAL} is missing)")
    try:
        with quiet_optuna():
            storage = JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
            return optuna.load_study(study_name=STUDY_NAME, storage=storage)
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:  # what Optuna makes of a damaged line, or of none
        raise UserError(f"{path} is damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def best_trial(study: optuna.Study) -> FrozenTrial:
    """Returns the trial with the highest best-so-far accuracy, the first of equals; raises UserError when no trial has a result.

    A trial that was pruned or interrupted counts with what it had reached: its weights are there too.
    """
    with_result = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values and trial.state != TrialState.FAIL]
    if not with_result:
        raise UserError("no trial of this search has a result yet")
    return max(with_result, key=lambda trial: (best_value(trial), -trial.number))
