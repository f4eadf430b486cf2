"""The winner, photograph by photograph."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, LeafData, open_data
from tune_cropshield.outcome.report.judgement import Judgement, judge
from tune_cropshield.training.loop import run_trial
from tune_cropshield.training.predictions import PREDICTIONS, Judged


@pytest.fixture(scope="module")
def data(drawn_leaves: Path, shared_cache: Path) -> LeafData:
    return open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, drawn_leaves: Path, data: LeafData) -> Path:
    """Two epochs of a small network."""
    folder = tmp_path_factory.mktemp("judged") / "run"
    trial = TrialConfig(model="tiny_cnn", image_size=32, epochs=2, effective_batch=32)
    config = RunConfig(data=DataConfig(dir=str(drawn_leaves)), trial=trial)
    run_trial(config, DeviceData(data, torch.device("cpu")), folder, report=lambda report: None)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_run_keeps_its_best_epochs_predictions_with_the_photographs_names(run: Path, data: LeafData) -> None:
    rows = rows_of(run / PREDICTIONS)

    assert list(rows[0]) == ["photograph", "true_class", "predicted", "probability"]
    assert [row["photograph"] for row in rows] == [data.store.paths[index] for index in data.split.val]
    assert all(row["photograph"].startswith(row["true_class"] + "/") for row in rows)
    right = sum(row["predicted"] == row["true_class"] for row in rows)
    assert right / 12 == json.loads((run / "metrics.json").read_text())["val_acc"]
    assert all(0.25 <= float(row["probability"]) <= 1 for row in rows)


def test_what_was_kept_is_shown_and_nothing_is_asked_anew(run: Path, tmp_path: Path, data: LeafData) -> None:
    (tmp_path / "run").mkdir()
    for name in ("config.toml", "classes.json", "model.safetensors"):
        (tmp_path / "run" / name).write_bytes((run / name).read_bytes())
    (tmp_path / "run" / PREDICTIONS).write_text(
        "photograph,true_class,predicted,probability\n"
        "rust/1.jpg,rust,rust,0.9\nrust/2.jpg,rust,healthy,0.5\nhealthy/3.jpg,healthy,rust,0.75\n"
    )

    found = judge(tmp_path / "run", None)

    assert found.classes == ("blight", "healthy", "leaf_spot", "rust")
    assert found.confusion == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 1]]
    assert [mistake.row.photograph for mistake in found.mistakes] == ["healthy/3.jpg", "rust/2.jpg"]  # the surest first
    assert [mistake.data_uri for mistake in found.mistakes] == [None, None]  # no photographs, no pictures
    assert judge(tmp_path / "run", data).rows == found.rows


def test_runs_of_earlier_versions_that_kept_numbers_are_read(run: Path, tmp_path: Path, data: LeafData) -> None:
    (tmp_path / "run").mkdir()
    for name in ("config.toml", "classes.json", "model.safetensors"):
        (tmp_path / "run" / name).write_bytes((run / name).read_bytes())
    asked_anew = judge(tmp_path / "run", data, "cpu")
    labels_N = data.store.labels[torch.from_numpy(data.split.val)]
    predicted_N = torch.where(torch.arange(12) < 9, labels_N, (labels_N + 1) % 4)
    kept = {"predicted": predicted_N, "probability": torch.full((12,), 0.5)}
    save_file(kept, tmp_path / "run" / "predictions.safetensors")

    (tmp_path / "run" / "metrics.json").write_text('{"val_acc": 0.75}')
    assert judge(tmp_path / "run", data, "cpu").num_mistakes == 3

    (tmp_path / "run" / "metrics.json").write_text('{"val_acc": 0.5}')  # the numbers are of other photographs
    assert judge(tmp_path / "run", data, "cpu").rows == asked_anew.rows


def test_classes_that_are_lost_are_known() -> None:
    rows = [Judged("a/1", "a", "b", 0.9), Judged("b/1", "b", "b", 0.9), Judged("c/1", "c", "d", 0.9)]
    found = Judgement(("a", "b", "c", "d"), tuple(rows), ())

    assert found.never_recognised == ["a", "c"]  # d has no photographs: nothing could be recognised
    assert found.never_predicted == ["a", "c"]
    assert (found.num_mistakes, found.accuracy) == (2, 1 / 3)
