"""Which network is a search's result: a trial's, or that of the winner's final training."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from optuna.trial import create_trial

from tune_cropshield.search.final import delivered

SETTINGS = """
[trial]
model = "tiny_cnn"
[space]
lr = {{log = [1e-4, 1e-2]}}
[search]
folds = {folds}
"""


def search_with_final(out: Path, folds: int, accuracy: float, outcome: str | None) -> optuna.Study:
    """Writes a search whose winner came to 0.8, and whose final training came to `accuracy`."""
    (out / "search.toml").write_text(SETTINGS.format(folds=folds))
    final = out / "final"
    final.mkdir()
    (final / "origin.json").write_text(json.dumps({"trial": 0, "after_trials": 1, "outcome": outcome}))
    (final / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "val_acc": accuracy}) + "\n")
    study = optuna.create_study(direction="maximize")
    study.add_trial(create_trial(value=0.8, intermediate_values={1: 0.8}))
    return study


@pytest.mark.parametrize(
    ("folds", "accuracy", "outcome", "is_result"),
    [
        (1, 0.81, "finished", True),
        (1, 0.8, "finished", True),
        (1, 0.79, "finished", False),
        (1, 0.81, None, True),  # interrupted, and already better
        # Each fold is validated on other photographs than the final training: the two accuracies do not compare.
        (5, 0.7, "finished", True),
        (5, 0.9, None, False),
        (5, 0.9, "diverged", False),
    ],
)
def test_a_final_training_is_the_result_where_it_compares_and_is_no_worse(
    tmp_path: Path, folds: int, accuracy: float, outcome: str | None, is_result: bool
) -> None:
    study = search_with_final(tmp_path, folds, accuracy, outcome)

    found = delivered(tmp_path, study)

    assert (found is not None) == is_result
    assert found is None or found.val_acc == accuracy
