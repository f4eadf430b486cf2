"""A search of two networks, sizes and optimizers, interrupted and continued: the real command line."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.search.journal import read_study

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]  # a busy machine may take a minute to start Ray

SPACE = """
[trial]
augment = "none"
schedule = "onecycle"
warmup_epochs = 0.0
[space]
model = {choice = ["tiny_cnn", "mine.py:net"]}
optimizer = {choice = ["adamw", "sgd"]}
lr = {log = [1e-4, 1e-2]}
effective_batch = {choice = [8, 16]}
[space.when.optimizer.sgd]
lr = {log = [1e-3, 0.3]}
momentum = {uniform = [0.8, 0.95]}
[space.when.model.tiny_cnn]
image_size = {choice = [24, 32]}
[space.when.model."mine.py:net"]
image_size = {choice = [16]}
[search]
trials = 4
epochs = 2
pruning = "none"
sampler = "random"
[[start]]
optimizer = "sgd"
model = "mine.py:net"
lr = 0.1
[[start]]
model = "tiny_cnn"
image_size = 32
optimizer = "adamw"
lr = 1e-3
"""
NET = """
from torch import nn

def net(num_classes):
    pooled = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*pooled, nn.Linear(4, num_classes))
"""


def run(home: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tune_cropshield", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env={**os.environ, "HOME": str(home)},  # Ray's secret is there
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_trials_of_several_networks_are_searched_continued_and_reported(home: Path) -> None:
    (home / "space.toml").write_text(SPACE)
    (home / "mine.py").write_text(NET)
    draw_leaves(home / "leaves", classes=3, per_class=12, image_size=40)
    given = ["--space", "space.toml", "--data", "leaves", "--out", "found", "--device", "cpu"]
    told = run(home, "search", *given, "--trials", "2")
    assert "tiny_cnn at 24 or 32 px" in told
    run(home, "search", *given, "--resume", "--trials", "5")

    net = f"{home / 'mine.py'}:net"
    study = read_study(home / "found")
    trials = study.get_trials()
    assert len(trials) == 5
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5
    first, second = (trial.params for trial in trials[:2])
    assert (first["model"], first["image_size"], first["optimizer"], first["lr"]) == (net, 16, "sgd", 0.1)
    assert (second["model"], second["image_size"], second["optimizer"], second["lr"]) == ("tiny_cnn", 32, "adamw", 1e-3)
    with open(home / "found" / "trials.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["momentum"] == ""
    assert float(rows[0]["momentum"]) == first["momentum"]
    assert "The trials by model" in (home / "found" / "report.html").read_text(encoding="utf-8")
    assert "when.optimizer.sgd.momentum 0.8 to 0.95" in run(home, "show", "found").replace("\n", " ")
    assert run(home, "evaluate", "found/best", "--split", "test")
