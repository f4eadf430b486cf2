"""Which network a search with a final training hands back, and what best/, the results and the report say of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from invented_search import EPOCHS, REFERENCE_SETTING, InventedTrial, invent_search

import tune_cropshield as tc
from tune_cropshield.config.settings import load_config
from tune_cropshield.outcome.export import write_best
from tune_cropshield.outcome.report import write_report
from tune_cropshield.search.final import final_trainings, next_folder
from tune_cropshield.training.metrics import EpochMetrics
from tune_cropshield.training.models import build_model
from tune_cropshield.training.run_folder import RunFolder, write_json

CLASSES = ("class_0", "class_1", "class_2", "class_3")


@pytest.fixture
def search_dir(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> Path:
    """A search of two trials, the second with val_acc 0.75."""
    folder = tmp_path / "search"
    better = {**REFERENCE_SETTING, "lr": 1e-3}
    trials = [InventedTrial(REFERENCE_SETTING, [0.5] * EPOCHS), InventedTrial(better, [0.5, 0.75])]
    invent_search(folder, drawn_leaves, shared_cache, trials)
    return folder


def add_final(search_dir: Path, accuracies: list[float], outcome: str | None = "finished") -> Path:
    """Writes a final training of trial 1 as the program does."""
    folder = next_folder(search_dir)
    folder.mkdir()
    run = RunFolder(folder)
    text = (search_dir / "t001" / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("epochs = 25", f"epochs = {len(accuracies)}"))
    lines = []
    for epoch, accuracy in enumerate(accuracies, start=1):
        known = {**json.loads((search_dir / "t001" / "metrics.jsonl").read_text().splitlines()[0]), "epoch": epoch}
        lines.append(EpochMetrics(**{**known, "val_acc": accuracy}))
        run.add_metrics(lines[-1].as_dict())
    best = max(lines, key=lambda metrics: metrics.val_acc)
    torch.manual_seed(len(accuracies))
    run.save_best(build_model("tiny_cnn", 4).state_dict(), [], best.as_dict(), CLASSES)
    write_json(folder / "origin.json", {"trial": 1, "after_trials": 2, "outcome": outcome})
    return folder


def test_a_final_training_that_is_no_worse_is_what_best_and_the_results_hold(search_dir: Path) -> None:
    final = add_final(search_dir, [0.5, 0.6, 0.75, 0.7])

    best = write_best(search_dir)

    assert json.loads((best / "origin.json").read_text()) == {"folder": "final", "trial": 1}
    assert (best / "model.safetensors").read_bytes() == (final / "model.safetensors").read_bytes()
    assert json.loads((best / "metrics.json").read_text())["epoch"] == 3
    assert load_config(best / "config.toml").trial.epochs == 4
    assert "Trains the search's final training again" in (best / "retrain.sh").read_text()
    found = tc.open_search(search_dir).best
    assert found is not None
    assert (found.number, found.val_acc, found.folder, found.parameters["lr"]) == (1, 0.75, final, 1e-3)


def test_a_worse_one_leaves_the_winner_in_its_place(search_dir: Path) -> None:
    add_final(search_dir, [0.5, 0.6, 0.7])

    best = write_best(search_dir)

    assert json.loads((best / "origin.json").read_text()) == {"folder": "t001", "trial": 1}
    assert (best / "model.safetensors").read_bytes() == (search_dir / "t001" / "model.safetensors").read_bytes()
    assert "Trains trial 1 of the search again" in (best / "retrain.sh").read_text()
    found = tc.open_search(search_dir).best
    assert found is not None and found.folder == search_dir / "t001"


def test_of_several_final_trainings_the_best_is_the_result(search_dir: Path) -> None:
    add_final(search_dir, [0.8, 0.9])
    second = add_final(search_dir, [0.8, 0.85, 0.8])

    assert second.name == "final-2"
    assert [(final.folder.name, final.value) for final in final_trainings(search_dir)] == [
        ("final", 0.9),
        ("final-2", 0.85),
    ]
    assert json.loads((write_best(search_dir) / "origin.json").read_text())["folder"] == "final"


def test_the_report_tells_the_final_training_and_its_test_figure(
    search_dir: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    final = add_final(search_dir, [0.5, 0.875])
    digest = (final / "model.sha256").read_text().split()[0]
    best = write_best(search_dir)
    tested = {"right": 9, "photographs": 12, "expected": 12, "accuracy": 0.75, "weights_sha256": digest}
    (best / "evaluation_test.json").write_text(json.dumps(tested))

    page = write_report(search_dir, shared_cache).read_text(encoding="utf-8").replace("<wbr>", "")

    assert "best/ holds the network of the final training (final, 2 epochs)." in page
    assert "val_acc after the final training" in page
    assert "the network of the final training is right on 9 of 12 photographs" in page
    assert "-12.5 points compared with val_acc" in page


def test_the_report_of_a_search_without_one_does_not_speak_of_it(search_dir: Path, shared_cache: Path) -> None:
    assert "final training" not in write_report(search_dir, shared_cache).read_text(encoding="utf-8")
