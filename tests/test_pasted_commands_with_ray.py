"""A whole session whose every command after the first is taken from what was printed or written, and pasted into bash.

The first one is a person's own; the others are read from the terminal, the files and the report.
"""

from __future__ import annotations

import html
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.shell import spelled

ROOT = Path(__file__).parents[1]
FOLDER = "it's a run of $5"
SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
[space]
lr = {log = [1e-3, 1e-2]}
[search]
trials = 2
epochs = 6
pruning = "none"
trials_per_gpu = 1
device = "cpu"
"""


@pytest.fixture
def paste(home: Path) -> Callable[..., str]:
    """Pastes a line into bash, as it stands, and returns what it said."""

    def paste(line: str, *, code: int = 0, ends_at: str | None = None) -> str:
        """Args: ends_at: Ctrl-C is pressed once this was said."""
        with subprocess.Popen(
            ["bash", "-c", line],
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            assert process.stdout is not None
            said = ""
            for text in process.stdout:
                said += text
                if ends_at is not None and ends_at in text:
                    os.killpg(process.pid, signal.SIGINT)
                    ends_at = None
            assert process.wait() == code, f"{line}\n{said}"
        return said

    return paste


def after(label: str, text: str) -> str:
    """Returns the command that stands behind a label, to the end of its line."""
    (found,) = re.findall(rf"{re.escape(label)}  (.*)", text)
    return str(found)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_every_command_of_a_session_can_be_pasted(paste: Callable[..., str], home: Path) -> None:
    draw_leaves(home / "my leaves", classes=3, per_class=20, image_size=40)
    (home / "space.toml").write_text(SPACE)
    words = ("search", "--data", "my leaves", "--space", "space.toml", "--out", FOLDER, "--from-scratch")
    program = f"{shlex.quote(sys.executable)} -m tune_cropshield"

    # A search is interrupted in its first trial.
    said = paste(spelled([sys.executable, "-m", "tune_cropshield", *words]), code=130, ends_at="t000 starts")
    board = after("TensorBoard:", said)
    assert "http://127.0.0.1:" in paste(board, ends_at="Ctrl-C ends it")
    said = paste(after("To continue:", said))
    assert "2 trials: 2 finished" in said
    assert "report:" in said

    # Its files say how it is repeated, from any folder and from theirs.
    run = home / FOLDER
    notes = (run / "search.toml").read_text()
    again = after("Search again:", notes)
    assert "2 trials x 6 epochs" in paste(f"cd / && {again} --dry-run")
    notes = (run / "best" / "config.toml").read_text()
    best = spelled(["cd", str(run / "best")])
    paste(f"{best} && {after('folder:', notes)}")
    assert (run / "retrained" / "model.safetensors").is_file()

    # The report's commands, as a browser copies them.
    page = (run / "report.html").read_text()
    blocks = re.findall(r'<div class="command"><h3>.*?</h3><pre tabindex="0"><code>(.*?)</code></pre>', page, re.S)
    lines = [html.unescape(line) for line in blocks]
    assert [" ".join(line.removeprefix(program).split()[:2]).partition(" '")[0] for line in lines] == [
        *("search --space", "search --out", "train --config", "confirm", "evaluate"),
        *("export", "export", "board", "report"),
        *("search --data", "search --out"),  # what was given: first, and to go on
    ]
    once_more, go_on, train, confirm, evaluate, settings, network, curves, report, given, gone_on_with = lines
    assert once_more == again
    assert go_on == f"{program} search --out {shlex.quote(str(run))} --resume"
    assert "best: val_acc" in paste(train)
    assert "test_acc" in paste(f"cd / && {evaluate}")
    assert '"model": "tiny_cnn"' in paste(f"cd / && {settings}")
    assert str(run / "best" / "model.onnx") in paste(f"cd / && {network}")
    assert str(run / "report.html") in paste(f"cd / && {report}")
    assert curves == f"{program} board {shlex.quote(str(run))}"
    assert "--resume" in paste(given, code=2)  # its folder is taken now
    assert gone_on_with == f"{program} search --out {shlex.quote(FOLDER)} --resume"

    # What `show` says leads to the trial, and to what other programs read.
    said = paste(spelled([sys.executable, "-m", "tune_cropshield", "show", FOLDER]))
    assert "finished after 6 epochs" in paste(after("one trial:", said))
    assert 'model = "tiny_cnn"' in paste(after("the best settings:", said))
    assert after("the network, for other programs:", said) == f"{program} export {shlex.quote(FOLDER)} --format onnx"

    # confirm is interrupted and goes on.
    said = paste(f"cd / && {confirm}", code=130, ends_at="1 of 6 runs")
    assert "6 of 6 runs" in paste(f"cd / && {after('To continue:', said)}")
