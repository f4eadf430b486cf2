"""What a program reads from a real search with --json-lines: nothing but events, and those that happened."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tune_cropshield.training.run_folder import read_metrics

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
schedule = "constant"
optimizer = "sgd"
warmup_epochs = 0.0
[space]
lr = {choice = [1e-4, 1e-2, 1e30]}
effective_batch = {choice = [16, 32]}
[baseline]
[search]
trials = 4
epochs = 4
grace_epochs = 1
reduction_factor = 2
[[start]]
lr = 1e30
"""
ENDS = ("finished", "pruned", "diverged")


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_every_line_of_a_real_search_is_an_event_and_they_tell_what_the_table_tells(
    drawn_leaves: Path, home: Path
) -> None:
    (home / "space.toml").write_text(SPACE)
    out = home / "out"
    command = [
        sys.executable,
        "-m",
        "tune_cropshield",
        "search",
        "--space",
        str(home / "space.toml"),
        "--data",
        str(drawn_leaves),
    ]

    done = subprocess.run([*command, "--out", str(out), "--json-lines"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    with open(out / "trials.csv", newline="", encoding="utf-8") as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    # One that was stopped may be continued: it starts and ends again, and its last end is the table's.
    assert {event["trial"] for event in events if event["event"] == "started"} == {0, 1, 2, 3}
    assert {event["trial"]: event["event"] for event in events if event["event"] in ENDS} == {
        trial: row["outcome"] for trial, row in rows.items()
    }
    assert "diverged" in {row["outcome"] for row in rows.values()}
    for trial in rows:
        told = [
            (event["epoch"], event["val_acc"])
            for event in events
            if event["event"] == "epoch" and event["trial"] == trial
        ]
        assert sorted(set(told)) == [(line["epoch"], line["val_acc"]) for line in read_metrics(out / f"t{trial:03d}")]
    best = [event["best_val_acc"] for event in events if event["event"] == "best"]
    assert best == sorted(set(best))
    result = events[-1]
    assert result["event"] == "result"
    assert result["best"]["best_val_acc"] == best[-1] == max(float(row["best_val_acc"] or 0) for row in rows.values())
    assert result["outcomes"] == Counter(row["outcome"] for row in rows.values())
    assert result["reference"]["trial"] == 0
