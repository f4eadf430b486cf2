"""`evaluate`, `predict` and `export` of a trained network."""

from __future__ import annotations

import csv
import json
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tune_cropshield as tc
from tune_cropshield.cli import main
from tune_cropshield.data.dataset import open_data
from tune_cropshield.training.run_folder import read_metrics

CLASSES = ["blight", "healthy", "leaf_spot", "rust"]


def test_evaluate_gives_the_accuracy_that_training_reported(trained: tc.TrainResult, home: Path) -> None:
    found = tc.evaluate(trained.folder, to=home)

    best = read_metrics(trained.folder)[trained.best_epoch - 1]
    assert (found.split, found.photographs, found.classes) == ("val", 12, CLASSES)
    assert (found.accuracy, found.macro_f1, found.loss) == (best["val_acc"], best["val_macro_f1"], best["val_loss"])
    assert (found.table, found.picture) == (home / "confusion_val.csv", home / "confusion_val.png")
    assert found.as_dict()["accuracy"] == found.accuracy
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()  # plain values


def test_evaluate_writes_the_confusion_matrix_as_a_table_and_a_picture(trained: tc.TrainResult, home: Path) -> None:
    found = tc.evaluate(str(trained.folder), split="test", to=home / "new")

    with open(home / "new" / "confusion_test.csv", newline="", encoding="utf-8") as file:
        (_, *classes), *rows = csv.reader(file)
    counts = np.array([[int(count) for count in row[1:]] for row in rows])
    assert [row[0] for row in rows] == classes == [row["class"] for row in found.class_rows()] == CLASSES
    assert counts.tolist() == found.as_dict()["confusion"]
    assert counts.sum(axis=1).tolist() == [row["photographs"] for row in found.class_rows()] == [6, 6, 6, 6]
    assert found.accuracy == counts.trace() / 24
    right, of_class, named = int(counts[0, 0]), int(counts[0].sum()), int(counts[:, 0].sum())
    assert found.class_rows()[0]["recall"] == right / of_class
    assert found.class_rows()[0]["precision"] == (right / named if named else None)
    with Image.open(found.picture) as picture:
        assert picture.format == "PNG"
        assert picture.width > 4 * 40


def test_the_test_split_is_looked_at_only_when_asked_for(trained: tc.TrainResult, home: Path) -> None:
    assert tc.evaluate(trained.folder, to=home).photographs == 12
    assert not (home / "confusion_test.csv").exists()

    assert tc.evaluate(trained.folder, to=home, split="test").photographs == 24
    assert (home / "confusion_test.csv").exists()


def test_an_unknown_split_and_a_folder_that_is_no_run_are_refused(trained: tc.TrainResult, tmp_path: Path) -> None:
    with pytest.raises(tc.UserError, match="--split: must be one of val, test, all, but got 'train'"):
        tc.evaluate(trained.folder, split="train")  # type: ignore[arg-type]
    with pytest.raises(tc.UserError, match=r"is no trained run: .* missing"):
        tc.evaluate(tmp_path)
    with pytest.raises(tc.UserError, match="RUN_DIR: must not be empty"):
        tc.evaluate("")


def test_predict_says_of_the_validation_photographs_what_evaluate_counted(
    trained: tc.TrainResult, tables: dict[str, Any], drawn_leaves: Path, home: Path
) -> None:
    data = open_data(tc.RunConfig.model_validate(tables).data, {32}, home / "cache")
    photographs = [drawn_leaves / data.store.paths[index] for index in data.split.val]

    found = tc.predict(trained.folder, photographs)

    assert [each.path for each in found] == photographs
    right = sum(next(iter(each.probabilities)) == each.path.parent.name for each in found)
    assert right / 12 == tc.evaluate(trained.folder, to=home).accuracy
    for each in found:
        assert each.fault is None
        assert sorted(each.probabilities) == CLASSES
        assert sum(each.probabilities.values()) == pytest.approx(1)
        assert next(iter(each.probabilities.values())) == max(each.probabilities.values())


def test_predict_takes_one_photograph_a_folder_and_each_once(trained: tc.TrainResult, drawn_leaves: Path) -> None:
    folder = drawn_leaves / "healthy"
    first, *_ = files = sorted(folder.iterdir())

    assert [each.path for each in tc.predict(trained.folder, str(first))] == [first]
    assert [each.path for each in tc.predict(trained.folder, [first, folder])] == files


def test_predict_tells_of_a_photograph_that_cannot_be_read_and_goes_on(trained: tc.TrainResult, home: Path) -> None:
    (home / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    Image.new("RGB", (40, 40), "green").save(home / "leaf.png")

    broken, leaf = tc.predict(trained.folder, [home / "broken.jpg", home / "leaf.png"])

    assert broken.probabilities == {} and broken.fault
    assert leaf.fault is None and len(leaf.probabilities) == 4


def test_predict_names_everything_that_is_not_there(trained: tc.TrainResult) -> None:
    with pytest.raises(tc.UserError) as told:
        tc.predict(trained.folder, ["gone.jpg", "away"])

    assert str(told.value).splitlines() == [
        "gone.jpg: no such photograph or folder",
        "away: no such photograph or folder",
    ]


def test_export_returns_the_settings_and_writes_them_only_when_asked_to(trained: tc.TrainResult, home: Path) -> None:
    shown = tc.export(trained.folder)
    assert shown.path is None and shown.text is not None
    assert tomllib.loads(shown.text)["trial"]["lr"] == 5e-3

    written = tc.export(trained.folder, format="json", to=home / "new")
    assert written.path == home / "new" / "config.json"
    assert json.loads(written.path.read_text())["trial"]["effective_batch"] == 16

    with pytest.raises(tc.UserError, match="--format: must be one of toml, json, command, onnx, but got 'yaml'"):
        tc.export(trained.folder, format="yaml")  # type: ignore[arg-type]


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a file's name be anything")
def test_predictions_of_names_that_break_a_line_or_are_no_utf8_take_one_line_each(
    trained: tc.TrainResult, drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photograph = next((drawn_leaves / "rust").iterdir()).read_bytes()
    for name in (b"a\nb.png", b"caf\xe9.png"):
        (home / os.fsdecode(name)).write_bytes(photograph)
    (home / "x\x1b.txt").write_text("no photograph")

    assert main(["predict", str(trained.folder), str(home)]) == 0
    told = capsys.readouterr()
    assert [line.split("\t")[0] for line in told.out.splitlines()] == [f"{home}/a\\nb.png", f"{home}/caf\\udce9.png"]
    assert main(["predict", str(trained.folder), str(home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[1]["path"] == f"{home}/caf\\udce9.png"
