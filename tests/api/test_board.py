"""`board`: TensorBoard for a search's folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

import tune_cropshield as tc
from tests.tensorboard_server import START_S


def test_a_folder_with_nothing_to_show_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tc.UserError, match=r"^results/runs is not a folder: give that of a search, or one that holds"):
        tc.board()
    (tmp_path / "results" / "runs" / "a").mkdir(parents=True)
    with pytest.raises(tc.UserError, match=r"^results/runs holds nothing to show: no search, and no training that"):
        tc.board()
    with pytest.raises(tc.UserError, match=r"^DIR b: there is no such folder"):
        tc.board("b")
    (tmp_path / "results" / "runs" / "a" / "search.toml").touch()
    with pytest.raises(tc.UserError, match=r"^--port: must be a whole number from 0 to 65535, but got 70000$"):
        tc.board(port=70000)


def test_it_serves_the_curves_on_this_machine_only_until_ctrl_c(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    runs = tmp_path / "my runs"
    with SummaryWriter(str(runs / "t000")) as writer:
        writer.add_scalar("validation/val_acc", 0.5, 1)
    with subprocess.Popen(
        [sys.executable, "-m", "tune_cropshield", "board", str(runs), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SSH_CONNECTION": "192.0.2.1 50000 192.0.2.7 2222", "USER": "me", "LOGNAME": "me"},
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            said = r"TensorBoard: (http://127\.0\.0\.1:(\d+)/)   \(Ctrl-C ends it\)\n"
            address = re.fullmatch(said, process.stdout.readline())
            assert address is not None
            port = address[2]
            assert process.stdout.readline() == (
                f"from the computer in front of you, first:  ssh -N -L {port}:127.0.0.1:{port} me@192.0.2.7 -p 2222\n"
            )
            deadline, shown = time.monotonic() + START_S, []
            while not shown:
                assert time.monotonic() < deadline
                with urllib.request.urlopen(f"{address[1]}data/runs", timeout=30) as answer:
                    shown = json.load(answer)
            assert shown == ["t000"]
            taken = subprocess.run(
                [sys.executable, "-m", "tune_cropshield", "board", str(runs), "--port", port],
                capture_output=True,
                text=True,
                check=False,
            )
            why = f"TensorBoard could not bind to port {port}, it was already in use"
            assert (taken.returncode, taken.stderr) == (2, f"error: TensorBoard does not start: {why}\n")
            process.send_signal(signal.SIGINT)
            assert (process.wait(timeout=30), process.stdout.read(), process.stderr.read()) == (0, "", "")
        finally:
            process.kill()
