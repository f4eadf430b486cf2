"""A training on drawn leaves through the command line, and what is then done with it."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config, save_config
from tune_cropshield.data.dataset import open_data
from tune_cropshield.training.run_folder import read_metrics

TRIAL: dict[str, Any] = {
    "model": "tiny_cnn",
    "image_size": 32,
    "augment": "none",
    "schedule": "constant",
    "effective_batch": 16,
    "lr": 5e-3,
    "threads": 1,
    "epochs": 4,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, drawn_leaves: Path) -> Path:
    path = tmp_path_factory.mktemp("configs") / "config.toml"
    save_config(RunConfig(data=DataConfig(dir=str(drawn_leaves), test_share=0.2), trial=TrialConfig(**TRIAL)), path)
    return path


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Path:
    """A finished training, made by the command."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    cache = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder.parent / "cache")
    try:
        assert main(["train", "--config", str(config), "--out", str(folder), "--device", "cpu"]) == 0
    finally:
        os.environ.pop("XDG_CACHE_HOME") if cache is None else os.environ.update(XDG_CACHE_HOME=cache)
    return folder


def train(config: Path, out: Path, *flags: str) -> int:
    return main(["train", "--config", str(config), "--out", str(out), "--device", "cpu", *flags])


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(left[name].equal(right[name]) for name in left.keys() | right.keys())


# train


def test_train_tells_every_epoch_in_a_line_and_the_best_at_the_end(
    config: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, home / "run") == 0

    told = capsys.readouterr().out.splitlines()
    assert told[:2] == ["decoding photographs", "training tiny_cnn on cpu: 84 photographs, 4 classes, up to 4 epochs"]
    epochs = [line for line in told if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/4", "2/4", "3/4", "4/4"]
    lines = read_metrics(home / "run")
    accuracies = [line["val_acc"] for line in lines]
    best = accuracies.index(max(accuracies)) + 1
    assert (
        told[-2] == f"best: val_acc {max(accuracies)!r} in epoch {best}, the last one (epoch 4) has {accuracies[-1]!r}"
    )
    assert told[-1] == f"the best epoch's weights: {home / 'run' / 'model.safetensors'}"


def test_train_stops_early_when_asked_and_keeps_the_best_epoch_not_the_last(
    config: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, home / "run", "--epochs", "60", "--early-stopping", "2") == 0

    lines = read_metrics(home / "run")
    accuracies = [line["val_acc"] for line in lines]
    assert len(lines) < 60
    assert accuracies.index(max(accuracies)) == len(lines) - 3  # two epochs without a better one
    assert "ended early: no better val_acc in 2 epochs" in capsys.readouterr().out
    assert json.loads((home / "run" / "metrics.json").read_text()) == lines[-3]
    assert load_config(home / "run" / "config.toml").trial.early_stopping == 2


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    config: Path, run_dir: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def interrupting(*words: object, **options: object) -> None:
        told.extend(words)
        if str(words[0]).startswith("epoch   2/4"):
            raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr("builtins.print", interrupting)
        assert train(config, home / "run") == 130
    assert told[-2:] == [f"go on: the same command with --out {home / 'run'} --resume", "error: interrupted"]
    assert train(config, home / "run", "--resume") == 0

    assert [line["epoch"] for line in read_metrics(home / "run")] == [1, 2, 3, 4]
    assert same(load_file(home / "run" / "model.safetensors"), load_file(run_dir / "model.safetensors"))


# evaluate


def test_evaluate_gives_the_accuracy_that_training_reported(
    run_dir: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run_dir), "--to", str(home)]) == 0

    told = capsys.readouterr().out.splitlines()
    best = json.loads((run_dir / "metrics.json").read_text())
    assert told[0] == "val: 12 photographs"
    assert told[1].split() == ["class", "precision", "recall", "F1", "photographs"]
    assert [line.split()[0] for line in told[2:6]] == ["blight", "healthy", "leaf_spot", "rust"]
    assert f"val_acc {best['val_acc']!r}" in told
    assert f"macro F1 {best['val_macro_f1']:.4f}   loss {best['val_loss']:.4f}" in told
    assert told[-1] == f"confusion matrix: {home / 'confusion_val.csv'} and confusion_val.png"


def test_evaluate_writes_the_confusion_matrix_as_a_table_and_a_picture(
    run_dir: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run_dir), "--to", str(home / "new"), "--json", "--split", "test"]) == 0

    told = json.loads(capsys.readouterr().out)
    with open(home / "new" / "confusion_test.csv", newline="", encoding="utf-8") as file:
        (_, *classes), *rows = csv.reader(file)
    counts = np.array([[int(count) for count in row[1:]] for row in rows])
    assert [row[0] for row in rows] == classes == [each["class"] for each in told["classes"]]
    assert counts.tolist() == told["confusion"]
    assert counts.sum(axis=1).tolist() == [each["photographs"] for each in told["classes"]] == [6, 6, 6, 6]
    assert told["accuracy"] == counts.trace() / 24
    right, of_class, named = int(counts[0, 0]), int(counts[0].sum()), int(counts[:, 0].sum())
    assert told["classes"][0]["recall"] == right / of_class
    assert told["classes"][0]["precision"] == (right / named if named else None)
    with Image.open(home / "new" / "confusion_test.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 4 * 40


def test_the_test_split_is_looked_at_only_when_asked_for(
    run_dir: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluated(run_dir, home, "val", capsys)["photographs"] == 12
    assert not (home / "confusion_test.csv").exists()

    assert evaluated(run_dir, home, "test", capsys)["photographs"] == 24
    assert (home / "confusion_test.csv").exists()


def evaluated(run_dir: Path, home: Path, split: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["evaluate", str(run_dir), "--to", str(home), "--json", "--split", split]) == 0
    return dict(json.loads(capsys.readouterr().out))


# predict


def test_predict_says_of_the_validation_photographs_what_evaluate_counted(
    run_dir: Path, drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = evaluated(run_dir, home, "val", capsys)
    data = open_data(load_config(run_dir / "config.toml").data, {32}, home / "cache")
    photographs = [str(drawn_leaves / data.store.paths[index]) for index in data.split.val]

    assert main(["predict", str(run_dir), *photographs, "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    assert [each["path"] for each in found] == photographs
    right = sum(each["class"] == Path(each["path"]).parent.name for each in found)
    assert right / 12 == figures["accuracy"]
    for each in found:
        assert sorted(each["probabilities"]) == ["blight", "healthy", "leaf_spot", "rust"]
        assert sum(each["probabilities"].values()) == pytest.approx(1)
        assert each["probability"] == max(each["probabilities"].values()) == each["probabilities"][each["class"]]


def test_predict_goes_through_folders_and_prints_a_line_each(
    run_dir: Path, drawn_leaves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = drawn_leaves / "healthy"
    first = sorted(folder.iterdir())[0]

    assert main(["predict", str(run_dir), str(first), str(drawn_leaves / "healthy")]) == 0

    told = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [path for path, _, _ in told] == [str(path) for path in sorted(folder.iterdir())]  # each once
    assert all(0.25 <= float(share) <= 1 for _, _, share in told)


def test_predict_names_what_is_unreadable_in_json_too_and_ends_with_2(
    run_dir: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    Image.new("RGB", (40, 40), "green").save(home / "leaf.png")

    assert main(["predict", str(run_dir), str(home / "broken.jpg"), str(home / "leaf.png"), "--json"]) == 2

    told = capsys.readouterr()
    broken, leaf = json.loads(told.out)
    assert broken.keys() == {"path", "error"}
    assert leaf["path"] == str(home / "leaf.png")
    assert told.err == "error: 1 of 2 photographs cannot be read\n"


def test_predict_names_everything_that_is_not_there(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(run_dir), "gone.jpg", "away"]) == 2

    assert capsys.readouterr().err.splitlines() == [
        "error: gone.jpg: no such photograph or folder",
        "error: away: no such photograph or folder",
    ]
