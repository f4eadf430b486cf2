"""A finished or unfinished search, read back."""

from __future__ import annotations

from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.errors import UserError
from tune_cropshield.search.folder import best_value, holds_search
from tune_cropshield.search.journal import open_study


def read_study(search_dir: Path) -> optuna.Study:
    """Returns the study in `search_dir`; raises UserError when there is no search."""
    if not holds_search(search_dir):
        raise UserError(f"{search_dir} holds no search (study.journal is missing)")
    return open_study(search_dir)


def best_trial(study: optuna.Study) -> FrozenTrial:
    """Returns the trial with the highest best-so-far accuracy, the first of equals; raises UserError when no trial has a result.

    A trial that was pruned or interrupted counts with what it had reached: its weights are there too.
    """
    with_result = [trial for trial in study.get_trials(deepcopy=False) if trial.intermediate_values and trial.state != TrialState.FAIL]
    if not with_result:
        raise UserError("no trial of this search has a result yet")
    return max(with_result, key=lambda trial: (best_value(trial), -trial.number))
