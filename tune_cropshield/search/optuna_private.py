"""The parts of Optuna that its documentation does not offer, all in one place. Tried on Optuna 5.0.

`tests/search/test_private_parts.py` names the one that has moved.
"""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial


def reopened(study: optuna.Study, trial: FrozenTrial) -> optuna.Trial:
    """Returns a trial that an earlier process began as one that can be continued: `study.ask` only begins new ones.

    Needs the trial's key in the storage, which `FrozenTrial` keeps for itself, and `Trial`'s constructor, which Optuna
    discourages from calling.
    """
    return optuna.Trial(study, trial._trial_id)


def overwrite_value(trial: optuna.Trial, epoch: int, value: float) -> None:
    """Replaces what `trial` has reported for `epoch`: `Trial.report` keeps the first value of a step for ever."""
    trial.storage.set_trial_intermediate_value(trial._trial_id, epoch, value)
