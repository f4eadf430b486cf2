"""A whole search that goes by a user's own metric: real Ray, real Optuna, a real command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import optuna
import pytest

from tune_cropshield.cli import main
from tune_cropshield.search.journal import read_study, study_goal
from tune_cropshield.training.run_folder import read_metrics

OWN = """
import numpy as np
def cost(labels, probabilities):
    return float((1 - probabilities[np.arange(len(labels)), labels]).mean())
cost.higher_is_better = False
def raises(labels, probabilities):
    raise ValueError("no such thing")
"""
SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
[space]
lr = {log = [1e-4, 3e-2]}
[search]
epochs = 4
grace_epochs = 1
"""


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_everything_goes_by_an_own_metric(
    drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    (home / "mine.py").write_text(OWN)
    (home / "space.toml").write_text(SPACE)
    command = ["search", "--space", "space.toml", "--data", str(drawn_leaves), "--out", "out", "--trials", "4"]

    assert main([*command, "--metric", "mine.py:raises"]) == 2
    assert "failed with ValueError: no such thing" in capsys.readouterr().err
    assert not (home / "out/study.journal").exists()

    assert main([*command, "--metric", "mine.py:cost"]) == 0
    told = capsys.readouterr().out
    study = read_study(home / "out")
    assert (study.direction, study_goal(study).name) == (optuna.study.StudyDirection.MINIMIZE, "cost")
    with open(home / "out/trials.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    best = min(rows, key=lambda row: (float(row["best_cost"]), int(row["trial"])))
    lines = read_metrics(home / "out" / f"t{int(best['trial']):03d}")
    assert float(best["best_cost"]) == min(line["cost"] for line in lines)
    assert float(best["best_val_acc"]) == lines[int(best["best_epoch"]) - 1]["val_acc"]
    assert f"best: trial {best['trial']}, cost {float(best['best_cost']):.4f}, val_acc " in told
    metrics = json.loads((home / "out/best/metrics.json").read_text())
    assert (metrics["cost"], metrics["metric"], metrics["higher_is_better"]) == (
        float(best["best_cost"]),
        "cost",
        False,
    )

    (home / "mine.py").write_text(OWN + "# changed\n")
    assert main([*command[:-1], "6", "--metric", "mine.py:cost", "--resume"]) == 2
    assert "mine.py:cost has changed" in capsys.readouterr().err
