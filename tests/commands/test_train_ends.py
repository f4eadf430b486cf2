"""A training whose reader goes, or that is asked to end: the real command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, save_config
from tune_cropshield.training.run_folder import read_metrics

pytestmark = pytest.mark.slow


def start(leaves: Path, home: Path, epochs: int, stdout: int) -> subprocess.Popen[str]:
    """Starts a training in a process group of its own."""
    trial = TrialConfig(model="tiny_cnn", image_size=32, epochs=epochs, threads=1)
    save_config(RunConfig(data=DataConfig(dir=str(leaves)), trial=trial), home / "config.toml")
    command = [sys.executable, "-m", "tune_cropshield", "train", "--config", str(home / "config.toml")]
    return subprocess.Popen(
        [*command, "--out", str(home / "out")],
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_reader_that_goes_does_not_end_a_training(drawn_leaves: Path, home: Path) -> None:
    process = start(drawn_leaves, home, 5, subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()  # as `| head -1`

    assert process.wait(timeout=100) == 0
    assert len(read_metrics(home / "out")) == 5
    assert (home / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_training_that_is_asked_to_end_says_how_to_go_on(drawn_leaves: Path, home: Path, number: int) -> None:
    process = start(drawn_leaves, home, 5000, subprocess.PIPE)
    deadline = time.monotonic() + 100
    while len(read_metrics(home / "out")) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)

    try:
        os.kill(process.pid, number)
        os.killpg(process.pid, number)  # as `timeout` does
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode == 130, said
    assert f" --out {home / 'out'} --resume" in said
    assert said.splitlines()[-1] == "error: interrupted"
    assert "Traceback" not in said
