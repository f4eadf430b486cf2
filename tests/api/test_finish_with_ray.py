"""A search with a time budget: trials, a final training that is killed and continued, one look at the test part."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tune_cropshield as tc
from tune_cropshield.training.run_folder import read_metrics

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
schedule = "onecycle"
[data]
test_share = 0.2
[space]
lr = {log = [1e-3, 1e-2]}
[baseline]
[search]
trials = 2
epochs = 2
grace_epochs = 1
device = "cpu"
"""
BUDGET_S = 60.0


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_search_killed_in_its_final_training_goes_on_with_it_and_keeps_the_time_of_both_starts(
    drawn_leaves: Path, home: Path
) -> None:
    (home / "space.toml").write_text(SPACE)
    out = home / "out"
    command = [sys.executable, "-m", "tune_cropshield", "search", "--out", str(out)]
    new = ["--space", str(home / "space.toml"), "--data", str(drawn_leaves), "--time-budget", f"{BUDGET_S:.0f}s"]
    began = time.monotonic()
    first = subprocess.Popen([*command, *new], start_new_session=True, stdout=subprocess.DEVNULL)
    while len(read_metrics(out / "final")) < 30 and first.poll() is None and time.monotonic() - began < BUDGET_S:
        time.sleep(0.1)
    assert [one.state for one in tc.list_searches(out)] == ["running"]
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    assert [one.state for one in tc.list_searches(out)] == ["interrupted"]
    took = time.monotonic() - began
    before = read_metrics(out / "final")
    assert len(before) >= 30

    began = time.monotonic()
    second = subprocess.run([*command, *new, "--resume"], capture_output=True, text=True, check=True)
    took += time.monotonic() - began

    assert 0.85 * BUDGET_S < took < 1.15 * BUDGET_S  # a killed start does not count what came before its trials
    lines = read_metrics(out / "final")
    assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0] == before[0]
    assert "final training: " in second.stdout
    assert "on 24 test photographs, which no training has used: test_acc" in second.stdout
    assert json.loads((out / "final" / "origin.json").read_text())["outcome"] == "finished"
    assert not (out / "final" / "last.pt").exists()
    assert [one.state for one in tc.list_searches(out)] == ["finished"]
    found = tc.open_search(out)
    assert found.best is not None and found.best.val_acc == max(line["val_acc"] for line in lines)
    assert found.best.folder == out / "final"
    assert json.loads((out / "best" / "evaluation_test.json").read_text())["photographs"] == 24

    assert "time budget: 1 min in all, " in second.stdout
    third = subprocess.run([*command, *new, "--resume"], capture_output=True, text=True, check=True)
    assert third.stdout.startswith(f"{out} is finished: ")
    # Whether both trials end within their share depends on the machine; what extends the search depends on that.
    used_up = "; the time budget is used up (time budget: 1 min in all, " in third.stdout
    assert " (time budget: 1 min in all, " in third.stdout
    extends = "--time-budget 120s" if used_up else "--trials 4 --time-budget 120s"
    assert third.stdout.endswith(f" search --out {out} --resume {extends}\n")
    assert len(third.stdout.splitlines()) == 1
    assert read_metrics(out / "final") == lines
