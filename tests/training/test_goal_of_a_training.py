"""A training that goes by another metric than the accuracy: its best epoch, its files, its faults."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.loop import run_trial, trial_epochs
from tune_cropshield.training.own_metric import check_own_metric, own_value
from tune_cropshield.training.run_folder import read_metrics

OWN = """
import numpy as np
def surprise(labels, probabilities):
    assert labels.dtype == np.int64 and probabilities.dtype == np.float32
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    found = -np.log(probabilities[np.arange(len(labels)), labels]).mean()
    labels[:], probabilities[:] = 0, 0  # it may do what it likes with them
    return found
surprise.higher_is_better = False
def raises(labels, probabilities):
    raise ValueError("no such thing")
def nothing(labels, probabilities):
    pass
def word(labels, probabilities):
    return "0.5"
def many(labels, probabilities):
    return probabilities
def no_number(labels, probabilities):
    return float("nan")
def val_acc(labels, probabilities):
    return 1.0
def outcome(labels, probabilities):
    return 1.0
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(OWN, encoding="utf-8")
    return file


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache), torch.device("cpu"))


def config(leaves: Path, **trial: Any) -> RunConfig:
    settings = {"model": "tiny_cnn", "image_size": 32, "augment": "none", "schedule": "constant", "threads": 1}
    return RunConfig(data=DataConfig(dir=str(leaves)), trial=TrialConfig.model_validate({**settings, **trial}))


def test_the_weights_and_early_stopping_go_by_the_loss(drawn_leaves: Path, data: DeviceData, tmp_path: Path) -> None:
    run = config(drawn_leaves, metric="val_loss", lr=0.02, epochs=60, early_stopping=2)
    last = run_trial(run, data, tmp_path / "run", report=lambda report: None)
    lines = read_metrics(tmp_path / "run")
    losses = [line["val_loss"] for line in lines]
    accuracies = [line["val_acc"] for line in lines]
    assert last.best_epoch == losses.index(min(losses)) + 1 == len(lines) - 2
    assert (last.best_value, last.best_val_acc) == (min(losses), accuracies[last.best_epoch - 1])
    assert json.loads((tmp_path / "run/metrics.json").read_text()) == lines[last.best_epoch - 1]
    assert {(line["metric"], line["higher_is_better"]) for line in lines} == {("val_loss", False)}


def test_an_own_metric_stands_in_every_file_and_goes_on_with_the_training(
    own: Path, drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    run = config(drawn_leaves, metric=f"{own}:surprise", epochs=3)
    run_trial(run, data, tmp_path / "whole", report=lambda report: None)
    lines = read_metrics(tmp_path / "whole")
    assert [line["surprise"] for line in lines] == pytest.approx([line["val_loss"] for line in lines], rel=1e-5)
    events = EventAccumulator(str(tmp_path / "whole"))
    events.Reload()
    assert [point.value for point in events.Scalars("validation/surprise")] == pytest.approx(
        [line["surprise"] for line in lines]
    )
    assert events.Scalars("validation/best_surprise")[-1].value == pytest.approx(
        min(line["surprise"] for line in lines)
    )

    epochs = trial_epochs(run, data, tmp_path / "again", checkpoint_every_s=0)
    next(epochs)
    epochs.close()
    run_trial(run, data, tmp_path / "again", report=lambda report: None, resume=True)
    assert [line["surprise"] for line in read_metrics(tmp_path / "again")] == [line["surprise"] for line in lines]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("raises", r"mine.py:raises' failed with ValueError: no such thing \(.*mine.py, line 11\)"),
        ("nothing", "mine.py:nothing' must return a finite number, but returned None"),
        ("word", "mine.py:word' must return a finite number, but returned '0.5'"),
        ("many", "mine.py:many' must return a finite number, but returned array"),
        ("no_number", "mine.py:no_number' must return a finite number, but returned nan"),
        ("val_acc", "val_acc means something else already; give the function another name"),
        ("outcome", "outcome means something else already; give the function another name"),
    ],
)
def test_an_own_metric_that_cannot_judge_is_told_before_anything_is_trained(own: Path, name: str, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        check_own_metric(f"{own}:{name}", [0, 1, 2, 1], 3)


def test_an_own_metric_that_has_no_value_for_some_predictions_is_nan_there(own: Path) -> None:
    labels_N, probabilities_NK = torch.tensor([0, 1]), torch.full((2, 2), 0.5)
    assert math.isnan(own_value(f"{own}:no_number", labels_N, probabilities_NK))
    with pytest.raises(ConfigError, match="must return a finite number, but returned None"):
        own_value(f"{own}:nothing", labels_N, probabilities_NK)


def test_metrics_of_ours_need_no_check() -> None:
    check_own_metric("val_auc", [], 2)
    assert math.isnan(own_value("val_auc", torch.zeros(0, dtype=torch.int64), torch.zeros(0, 2)))


def test_evaluate_tells_the_own_metric_and_lives_without_it(
    own: Path, drawn_leaves: Path, data: DeviceData, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run_trial(config(drawn_leaves, metric=f"{own}:surprise", epochs=1), data, home / "run", lambda report: None)
    assert main(["evaluate", str(home / "run"), "--split", "val"]) == 0
    assert f"surprise {last.best_value:.4f}" in capsys.readouterr().out.splitlines()
    own.write_text("def surprise(labels, probabilities):\n    return None\n")
    assert main(["evaluate", str(home / "run"), "--split", "val"]) == 0
    assert "must return a finite number, but returned None" in capsys.readouterr().out
