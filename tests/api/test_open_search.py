"""`tune_cropshield.open_search`: a search read from its folder. The folders are as real searches leave them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pandas
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

import tune_cropshield as tc
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, save_config
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.search.folder import save_settings
from tune_cropshield.search.journal import open_study
from tune_cropshield.training.metrics import METRIC_NAMES

DISTRIBUTIONS = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "max_norm": CategoricalDistribution(["none", 1.0])}
SPACE = {
    "trial": {"model": "tiny_cnn", "image_size": 32},
    "space": {"lr": {"log": (1e-5, 1e-1)}, "max_norm": {"choice": ["none", 1.0]}},
}


def add_trial(
    folder: Path, parameters: dict[str, Any], accuracies: list[float], state: TrialState, **attrs: str
) -> None:
    """Adds a trial that reported these accuracies, with its folder; a running one has written half a line more."""
    study = open_study(folder)
    best = {epoch: max(accuracies[:epoch]) for epoch in range(1, len(accuracies) + 1)}
    study.add_trial(
        optuna.trial.create_trial(
            params=parameters,
            distributions={name: DISTRIBUTIONS[name] for name in parameters},
            value=max(accuracies) if state == TrialState.COMPLETE else None,
            intermediate_values=best,
            state=state,
            user_attrs=attrs,
        )
    )
    run_dir = folder / f"t{len(study.trials) - 1:03d}"
    run_dir.mkdir()
    trial = TrialConfig(model="tiny_cnn", image_size=32, **parameters)
    save_config(RunConfig(data=DataConfig(dir="/photographs"), trial=trial), run_dir / "config.toml")
    lines = [
        json.dumps({**dict.fromkeys(METRIC_NAMES, 0.5), "epoch": epoch, "val_acc": accuracy, "lr": 0.25})
        for epoch, accuracy in enumerate(accuracies, 1)
    ]
    half = '{"epoch": ' if state == TrialState.RUNNING else ""
    (run_dir / "metrics.jsonl").write_text("".join(line + "\n" for line in lines) + half)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A search that is running: one trial finished, one was pruned, one has begun, one waits."""
    search_dir = tmp_path / "search"
    search_dir.mkdir()
    save_settings(search_dir, SearchSpace.model_validate(SPACE), "again")
    add_trial(search_dir, {"lr": 1e-4, "max_norm": "none"}, [0.25, 0.5, 0.375], TrialState.COMPLETE, outcome="finished")
    add_trial(search_dir, {"lr": 1e-3, "max_norm": 1.0}, [0.75], TrialState.PRUNED, outcome="pruned")
    add_trial(search_dir, {"lr": 1e-2}, [], TrialState.RUNNING)
    open_study(search_dir).enqueue_trial({"lr": 1e-5})
    return search_dir


def test_the_trials_are_rows_with_the_columns_of_the_table_and_typed_values(folder: Path) -> None:
    first, second, third = tc.open_search(folder).trials

    assert list(first)[:7] == ["trial", "state", "lr", "max_norm", "epochs", "best_epoch", "best_val_acc"]
    assert list(first) == list(second) == list(third)
    assert list(first.values())[:7] == [0, "COMPLETE", 1e-4, "none", 3, 2, 0.5]
    assert list(second.values())[:7] == [1, "PRUNED", 1e-3, 1.0, 1, 1, 0.75]
    assert list(third.values())[:7] == [2, "RUNNING", 1e-2, None, 0, None, None]
    assert (first["epoch_lr"], first["outcome"], third["outcome"], third["val_loss"]) == (
        0.25,
        "finished",
        "unfinished",
        None,
    )


def test_the_curves_are_a_row_per_trial_and_epoch(folder: Path) -> None:
    curves = tc.open_search(str(folder)).curves

    assert [(row["trial"], row["epoch"], row["val_acc"]) for row in curves] == [
        (0, 1, 0.25),
        (0, 2, 0.5),
        (0, 3, 0.375),
        (1, 1, 0.75),
    ]
    assert set(curves[0]) == {"trial", *METRIC_NAMES}


def test_rows_and_curves_make_tables_of_pandas(folder: Path) -> None:
    results = tc.open_search(folder)

    assert pandas.DataFrame(results.trials)["best_val_acc"].max() == 0.75
    assert pandas.DataFrame(results.curves).groupby("trial")["val_acc"].max().tolist() == [0.5, 0.75]


def test_the_best_is_the_highest_also_when_it_was_pruned(folder: Path) -> None:
    best = tc.open_search(folder).best

    assert best is not None and best.config is not None
    assert (best.number, best.parameters, best.val_acc) == (1, {"lr": 1e-3, "max_norm": 1.0}, 0.75)
    assert best.folder == folder / "t001"
    assert best.config.trial.lr == 1e-3


def test_the_settings_are_the_searchs_own(folder: Path) -> None:
    settings = tc.open_search(folder).settings

    assert settings is not None
    assert (settings.trial["model"], settings.space["lr"].log) == ("tiny_cnn", (1e-5, 1e-1))


def test_reading_touches_no_file_and_tells_nothing_of_how_it_ended(folder: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}

    results = tc.open_search(folder)

    assert (results.stopped, results.interrupted, results.failed) == (None, False, False)
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")} == before


def test_a_search_without_a_result_or_with_settings_of_another_version_is_read_all_the_same(tmp_path: Path) -> None:
    open_study(tmp_path).enqueue_trial({"lr": 1e-4})
    (tmp_path / "search.toml").write_text("[search]\na_setting_of_old = 3\n")

    results = tc.open_search(tmp_path)

    assert (results.trials, results.curves, results.best, results.settings) == ([], [], None, None)


def test_a_folder_without_a_search_is_refused(tmp_path: Path) -> None:
    with pytest.raises(tc.UserError, match=r"holds no search \(study.journal is missing\)"):
        tc.open_search(tmp_path)
