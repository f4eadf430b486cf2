"""benchmarks/record_curves.py: what searches train becomes a table of curves."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from replay import read_table

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "record_curves.py"
SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
[space]
lr = {choice = [1e-3, 1e30, 1e31]}
max_norm = {choice = ["none", 1.0]}
effective_batch = {choice = [16, 32]}
[baseline]
[search]
epochs = 2
[[start]]
lr = 1e30
max_norm = 1.0
effective_batch = 16
"""
COLUMNS = (
    "trial,lr,max_norm,effective_batch,micro_batch,epoch,val_acc,val_macro_f1,val_loss,train_loss,grad_norm_p50,"
    "clip_rate,epoch_s"
)


@pytest.mark.ray
def test_two_searches_of_whole_trainings_become_one_table(home: Path, drawn_leaves: Path) -> None:
    space, table = home / "space.toml", home / "curves" / "tiny.csv"
    space.write_text(SPACE)
    command = [sys.executable, str(SCRIPT), "--data", str(drawn_leaves), "--space", str(space), "--out", str(table)]
    done = subprocess.run(
        [*command, "--trials", "4", "--seeds", "3", "6", "--device", "cpu"],
        capture_output=True,
        text=True,
        check=True,
        cwd=SCRIPT.parents[1],
    )
    said = re.fullmatch(rf"{table}: (\d) trials of 2 epochs; left out: (\d) diverged", done.stdout.splitlines()[-1])
    assert said is not None, done.stdout
    kept, diverged = int(said[1]), int(said[2])
    assert kept + diverged == 8
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == COLUMNS
    assert [(row["trial"], row["epoch"]) for row in rows] == [(str(n), e) for n in range(kept) for e in ("1", "2")]
    first = {name: rows[0][name] for name in ("lr", "max_norm", "effective_batch", "micro_batch")}
    assert first == {"lr": "0.001", "max_norm": "none", "effective_batch": "32", "micro_batch": "32"}
    assert all(0 < float(row["val_acc"]) <= 1 and float(row["epoch_s"]) > 0 for row in rows)

    read = read_table(table)
    assert (read.epochs, len(read.settings)) == (2, kept)
    assert read.settings[0] == {"max_norm": "none", "effective_batch": 32}  # what all have alike is not searched
    assert read.best_so_far[0].tolist() == [float(rows[0]["val_acc"]), max(float(row["val_acc"]) for row in rows[:2])]
