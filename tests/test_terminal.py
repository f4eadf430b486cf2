"""Sentences on a terminal and in a pipe."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from tune_cropshield.cli import main
from tune_cropshield.search.views.live import LiveView
from tune_cropshield.search.views.plain import PlainView
from tune_cropshield.terminal import say

SENTENCE = (
    "the time budget is too short for a search: a whole trial takes about 33 s, and only 20 s of it are for trials"
)
PATH = "/home/somebody/a/path/that/is/longer/than/the/terminal/is/wide/report.html"


def said(sentence: str, width: int, *, end: str = "", terminal: bool = True) -> list[str]:
    text = io.StringIO()
    say(Console(file=text, width=width, force_terminal=terminal, color_system=None), sentence, end=end)
    return text.getvalue().splitlines()


def test_a_long_sentence_is_folded_between_words_on_a_terminal_and_is_one_line_in_a_pipe() -> None:
    assert said(SENTENCE, 80) == [
        "the time budget is too short for a search: a whole trial takes about 33 s, and",
        "only 20 s of it are for trials",
    ]
    assert said(SENTENCE, 60) == [
        "the time budget is too short for a search: a whole trial",
        "takes about 33 s, and only 20 s of it are for trials",
    ]
    assert said(SENTENCE, 60, terminal=False) == [SENTENCE]


def test_what_is_to_be_copied_stays_in_one_piece() -> None:
    command = "tune-cropshield search --out results/runs/tiny_cnn-20261128-020158 --resume"
    assert said(f"ended early: stopped by hand. To continue:  {command}", 60) == [
        "ended early: stopped by hand. To continue:",
        command,
    ]
    assert said(f"one trial:  {command[:30]}", 60) == [f"one trial:  {command[:30]}"]
    assert said(f"report: {PATH}", 60) == [f"report: {PATH}"]
    assert said("there is no 'gpu'; known: auto, cpu, cuda", 50, end="(search --help tells more)") == [
        "there is no 'gpu'; known: auto, cpu, cuda",
        "(search --help tells more)",
    ]


def test_wide_letters_take_two_places() -> None:
    assert said("葉の写真 葉の写真 葉の写真", 17) == ["葉の写真 葉の写真", "葉の写真"]


def test_a_line_break_in_a_path_breaks_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert said("report: a\nb/report.html", 80) == ["report: a\\nb/report.html"]

    lines = ["best configuration and weights: a\nb/best", "report: a\nb/report.html"]
    PlainView().result(lines, {})
    PlainView().note("in a\nb")
    assert capsys.readouterr().out.splitlines() == [
        "best configuration and weights: a\\nb/best",
        "report: a\\nb/report.html",
        "in a\\nb",
    ]
    text = io.StringIO()
    LiveView(Console(file=text, width=80, force_terminal=True, color_system=None)).result(lines, {})
    assert "a\\nb/best" in text.getvalue() and "a\\nb/report.html" in text.getvalue()


def test_commands_that_print_a_path_print_it_in_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample-data", str(home / "a\nb"), "--classes", "2", "--per-class", "3", "--image-size", "32"]) == 0

    assert capsys.readouterr().out == f"2 classes of 3 synthetic photographs, 32 px, in {home}/a\\nb\n"


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
def test_an_error_is_folded_between_words_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "tune_cropshield", "search", "--device", "gpu"]
    done = subprocess.run(command, stderr=theirs, env={**os.environ, "COLUMNS": "60", "NO_COLOR": "1", "TERM": "xterm"})
    os.close(theirs)

    assert done.returncode == 2
    assert os.read(ours, 1000).decode().splitlines()[:2] == [
        "error: argument --device: there is no 'gpu'; did you mean",
        "cuda? known: auto, cpu, cuda",
    ]
    os.close(ours)
