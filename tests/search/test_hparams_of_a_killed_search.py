"""What TensorBoard shows of a real search that was killed."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tensorboard_server import TensorBoard, tensorboard

from tune_cropshield.search.endings import shown_state
from tune_cropshield.search.journal import is_stopped, read_study
from tune_cropshield.shell import command
from tune_cropshield.training.run_folder import read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
schedule = "onecycle"
[space]
lr = {log = [1e-4, 3e-2]}
max_norm = {choice = ["none", 1.0]}
[baseline]
[search]
trials = 8
epochs = 9
grace_epochs = 1
reduction_factor = 2
"""


def trials(board: TensorBoard) -> dict[str, dict[str, Any]]:
    """The rows of the HParams tab by trial: their names say the setting too."""
    return {name.split("/")[0]: trial for name, trial in board.trials().items()}


def test_the_trials_of_a_killed_search_are_there_with_their_parameters_and_states(
    drawn_leaves: Path, home: Path
) -> None:
    (home / "space.toml").write_text(SPACE)
    out = home / "out"
    words = [
        sys.executable,
        "-m",
        "tune_cropshield",
        "search",
        "--space",
        str(home / "space.toml"),
        "--data",
        str(drawn_leaves),
        "--out",
        str(out),
    ]
    with open(home / "output.txt", "w+") as output:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            deadline = time.monotonic() + 250
            while not (out / "trials.csv").exists() or not any(read_metrics(folder) for folder in out.glob("t00[2-9]")):
                assert process.poll() is None and time.monotonic() < deadline, (home / "output.txt").read_text()
                time.sleep(0.1)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        assert f"TensorBoard:  {command('board', out)}\n" in output.read()

    study = {f"t{trial.number:03d}": trial for trial in read_study(out).trials if trial.params}
    with tensorboard(out) as board:
        board.wait_for_runs(sum(bool(read_metrics(out / name)) for name in study))
        shown = trials(board)
        deadline = time.monotonic() + 20  # it reads the files of trials without an epoch in its own time
        while sorted(shown) != sorted(study) and time.monotonic() < deadline:
            time.sleep(0.5)
            shown = trials(board)

    with open(out / "trials.csv", encoding="utf-8") as file:
        in_table = {f"t{int(row['trial']):03d}" for row in csv.DictReader(file) if row["state"] != "RUNNING"}
    assert in_table
    assert len(study) >= 3
    assert sorted(shown) == sorted(study)
    for name, trial in study.items():
        assert shown[name]["hparams"]["lr"] == trial.params["lr"]
        assert shown[name]["hparams"]["max_norm"] == str(trial.params["max_norm"])
        known = {
            "COMPLETE": ("STATUS_SUCCESS", 0.0),
            # One that a pruning step has stopped has no end before the search has: it may still go on.
            "PRUNED": ("STATUS_UNKNOWN" if is_stopped(trial) else "STATUS_SUCCESS", 1.0),
            "RUNNING": ("STATUS_UNKNOWN", 0.0 if shown[name]["metrics"].get("search/pruned") == 0 else None),
        }
        state = shown_state(trial)
        if name not in in_table and "search/pruned" not in shown[name]["metrics"]:
            state = "RUNNING"  # the kill came when its end was in the journal and nowhere else
        assert (shown[name]["status"], shown[name]["metrics"].get("search/pruned")) == known[state]
    assert {shown_state(trial) for trial in study.values()} > {"RUNNING"}
