"""What `train`, `evaluate` and `predict` print. What they do is tested in tests/api."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, save_config
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


# train


def test_train_tells_every_epoch_in_a_line_and_the_best_at_the_end(
    config: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(config, home / "run") == 0

    told = capsys.readouterr().out.splitlines()
    assert told[0] == "decoding photographs"
    assert told[1].startswith("12 validation photographs: one is 8.3 points of val_acc")
    assert told[2] == "training tiny_cnn on cpu: 84 photographs, 4 classes, up to 4 epochs"
    epochs = [line for line in told if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/4", "2/4", "3/4", "4/4"]
    lines = read_metrics(home / "run")
    accuracies = [line["val_acc"] for line in lines]
    best = accuracies.index(max(accuracies)) + 1
    assert told[-2] == (
        f"best: val_acc {max(accuracies):.4f} in epoch {best}, the last one (epoch 4) has {accuracies[-1]:.4f}"
    )
    assert told[-1] == f"the best epoch's weights: {home / 'run' / 'model.safetensors'}"


# evaluate


def test_evaluate_gives_the_accuracy_that_training_reported(
    run_dir: Path, drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(run_dir), "--to", str(home)]) == 0

    told = capsys.readouterr().out.splitlines()
    best = json.loads((run_dir / "metrics.json").read_text())
    assert told[0] == f"val: 12 of 12 photographs in {drawn_leaves}"
    assert told[1].split() == ["class", "precision", "recall", "F1", "photographs"]
    assert [line.split()[0] for line in told[2:6]] == ["blight", "healthy", "leaf_spot", "rust"]
    assert f"val_acc {best['val_acc']:.4f}" in told
    assert f"macro F1 {best['val_macro_f1']:.4f}   loss {best['val_loss']:.4f}" in told
    assert f"balanced accuracy {best['val_balanced_acc']:.4f}   AUC {best['val_auc']:.4f}" in told
    assert told[-1] == f"confusion matrix: {home / 'confusion_val.csv'} and confusion_val.png"


def test_evaluate_prints_one_object_for_programs(run_dir: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(run_dir), "--to", str(home / "new"), "--json", "--split", "test"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert list(told) == [
        "split",
        "data",
        "own",
        "photographs",
        "expected",
        "trained",
        "validated",
        "right",
        "accuracy",
        "accuracy_interval",
        "macro_f1",
        "balanced_acc",
        "auc",
        "classes_present",
        "loss",
        "remarks",
        "classes",
        "confusion",
    ]
    assert (told["split"], told["own"], told["photographs"], told["expected"]) == ("test", True, 24, 24)
    assert told["right"] / 24 == told["accuracy"]
    assert [each["class"] for each in told["classes"]] == ["blight", "healthy", "leaf_spot", "rust"]
    assert list(told["classes"][0]) == ["class", "precision", "recall", "F1", "photographs"]
    assert [sum(row) for row in told["confusion"]] == [6, 6, 6, 6]


def test_evaluate_says_how_many_of_how_many_and_what_was_left_out(
    run_dir: Path, drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = home / "field"
    for name, taken_from in (("rust", "rust"), ("healthy", "healthy"), ("Blight ", "blight")):
        (other / name).mkdir(parents=True)
        for number, photograph in enumerate(sorted((drawn_leaves / taken_from).iterdir())[:10]):
            Image.open(photograph).transpose(Image.Transpose.ROTATE_90).save(other / name / f"{number}.png")
    (other / "rust" / "broken.jpg").write_bytes(b"no photograph")

    assert main(["evaluate", str(run_dir), "--data", str(other), "--to", str(home / "to")]) == 0

    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"all: 20 of 31 photographs in {other}"
    assert told[1] == (
        "left out: 10 photographs of classes that it was not trained on: Blight  (10, is 'blight' meant?)"
    )
    assert told[2].startswith("left out: rust/broken.jpg (")
    assert told[3] == "no photographs of blight, leaf_spot"
    assert any(line.startswith("macro F1 0.") and "over the 2 classes that have photographs" in line for line in told)
    (blight,) = (line for line in told if line.startswith(" blight "))
    assert blight.split()[-3:] == ["-", "-", "0"]


# predict


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
    assert leaf.keys() == {"path", "class", "probability", "probabilities"}
    assert leaf["probability"] == leaf["probabilities"][leaf["class"]]
    assert leaf["path"] == str(home / "leaf.png")
    assert told.err == "error: 1 of 2 photographs cannot be read\n"


def test_predict_prints_a_table_with_the_photographs_names(
    run_dir: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    Image.new("RGB", (40, 40), "green").save(home / "a, leaf.png")

    assert main(["predict", str(run_dir), str(home / "broken.jpg"), str(home / "a, leaf.png"), "--csv"]) == 2

    broken, leaf = csv.DictReader(capsys.readouterr().out.splitlines())
    assert list(leaf) == ["photograph", "predicted", "probability", "error"]
    assert (leaf["photograph"], leaf["error"]) == (str(home / "a, leaf.png"), "")
    assert leaf["predicted"] in ("blight", "healthy", "leaf_spot", "rust") and 0.25 <= float(leaf["probability"]) <= 1
    assert (broken["photograph"], broken["predicted"], broken["probability"]) == (str(home / "broken.jpg"), "", "")
    assert broken["error"]


def test_predict_tells_on_stderr_what_it_passes_over_in_a_folder(
    run_dir: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = home / "new"
    folder.mkdir()
    Image.new("RGB", (40, 40), "green").save(folder / "leaf", format="JPEG")
    for name in ("notes.txt", "raw.nef"):
        (folder / name).write_bytes(b"II*\x00")

    assert main(["predict", str(run_dir), str(folder)]) == 0

    told = capsys.readouterr()
    assert told.out.split("\t")[0] == str(folder / "leaf")
    assert told.err.splitlines() == [
        f"{folder}: left out: 1 .nef (this format is not read: convert them to JPEG or PNG)",
        f"{folder}: ignored, not photographs: 1 .txt",
    ]


def test_evaluate_on_another_folder_joins_the_classes_that_training_joined(
    config: Path, drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = home / "merged.toml"
    merged.write_text(config.read_text().replace("[data.merge]", '[data.merge]\nrust = "leaf_spot"'))
    assert train(merged, home / "run") == 0
    assert json.loads((home / "run" / "classes.json").read_text()) == ["blight", "healthy", "leaf_spot"]
    for name in ("rust", "leaf_spot"):  # of which `rust` alone is a folder there
        (home / "other" / "rust").mkdir(parents=True, exist_ok=True)
        for file in sorted((drawn_leaves / name).iterdir())[:4]:
            (home / "other" / "rust" / f"{name}{file.name}").write_bytes(file.read_bytes())
    capsys.readouterr()

    assert main(["evaluate", str(home / "run"), "--data", str(home / "other"), "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["photographs"] == told["expected"] == 8
    assert [row["photographs"] for row in told["classes"]] == [0, 0, 8]
