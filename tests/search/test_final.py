"""Which network is a search's result: a trial's, or that of the winner's final training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import torch
from begun_search import Photographs, begun, prepared
from optuna.trial import create_trial

from tune_cropshield.device import num_cores
from tune_cropshield.search.final import delivered, measured_epoch_s, setting_of

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
    assert found is None or found.value == accuracy


def test_whether_trials_fit_is_timed_with_the_threads_of_a_trial_and_the_final_training_has_all_cores(
    drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    found = prepared(Photographs(drawn_leaves, shared_cache), tmp_path / "space.toml")
    (tmp_path / "out").mkdir()
    search = begun(replace(found, resources=replace(found.resources, threads=1)), tmp_path / "out")
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert measured_epoch_s(search) is not None
        assert torch.get_num_threads() == 1  # as the updates were timed
    finally:
        torch.set_num_threads(threads)
    assert setting_of(search)[0].trial.threads == num_cores()
