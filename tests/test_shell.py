"""Commands as they are printed: what a shell makes of them, and how they are spelled for PowerShell."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tune_cropshield.api.arguments import command_line
from tune_cropshield.shell import command, install_command, spelled

STRANGE = (
    "two words",
    "it's",
    'a "quoted" one',
    "$HOME",
    "`id`",
    "~",
    "=ls",
    "Blätter/Größe",
    "a*b?[c]",
    "semi;colon & and | pipe",
    "back\\slash",
    "line\nbreak\tand\x1b[31m",
    "no-utf8-\udce9'",
    "#hash",
    "!!",
    "",
)


def test_a_shell_reads_every_word_as_it_was() -> None:
    show = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"
    line = spelled([sys.executable, "-c", show, *STRANGE], windows=False)
    assert "\n" not in line and "\x1b" not in line
    read = subprocess.run(["bash", "-c", os.fsencode(line)], capture_output=True, check=True).stdout
    assert tuple(map(os.fsdecode, read.split(b"\0"))) == STRANGE


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["tune-cropshield", "search", "--time-budget", "2h"], "tune-cropshield search --time-budget 2h"),
        ([r".venv\Scripts\tune-cropshield", "list"], r".venv\Scripts\tune-cropshield list"),
        ([r"C:\my env\tune-cropshield", "list"], r'& "C:\my env\tune-cropshield" list'),
        (["tune-cropshield", "board", r"results\my run"], r'tune-cropshield board "results\my run"'),
        (["tune-cropshield", "board", "it's"], 'tune-cropshield board "it\'s"'),
        (["tune-cropshield", "board", "it's $5"], "tune-cropshield board 'it''s $5'"),
        (["tune-cropshield", "board", "Blätter"], "tune-cropshield board Blätter"),
        (["tune-cropshield", "board", "a,b"], 'tune-cropshield board "a,b"'),
        (["tune-cropshield", "board", "@home"], 'tune-cropshield board "@home"'),
        (["tune-cropshield", "board", "(1)"], 'tune-cropshield board "(1)"'),
        (["tune-cropshield", "board", "“new”"], "tune-cropshield board '“new”'"),
        (["tune-cropshield", "board", "-x.y"], 'tune-cropshield board "-x.y"'),
        (["tune-cropshield", "board", "a`b"], "tune-cropshield board 'a`b'"),
    ],
)
def test_a_line_is_spelled_for_powershell(words: list[str], line: str) -> None:
    assert spelled(words, windows=True) == line


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment of its own with the program in it, in front of everything on the PATH, as under `uv run`."""
    program = tmp_path / "checkout" / ".venv" / "bin" / "tune-cropshield"
    program.parent.mkdir(parents=True)
    program.touch(0o755)
    monkeypatch.setattr(sys, "prefix", str(program.parents[1]))
    monkeypatch.setattr(sys, "argv", [str(program), "search"])
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(program.parents[2])
    return program


def test_a_program_of_an_environment_is_called_by_its_path(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command("list") == ".venv/bin/tune-cropshield list"
    assert command("board", Path("runs/a"), anywhere=True) == f"{environment} board {Path.cwd()}/runs/a"
    (elsewhere := environment.parents[3] / "elsewhere").mkdir()
    monkeypatch.chdir(elsewhere)
    assert command("list") == f"{environment} list"


def test_a_program_that_every_shell_finds_is_called_by_its_name(
    environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert command("list", anywhere=True) == "tune-cropshield list"
    monkeypatch.setattr(sys, "argv", ["./.venv/bin/tune-cropshield"])
    assert command("list") == "tune-cropshield list"
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert command("list") == f"{environment} list"


@pytest.mark.parametrize("started", ["/x/tune_cropshield/__main__.py", "/x/pytest", "", "/x/default_worker.py"])
def test_a_module_or_a_library_is_called_with_its_python(started: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    monkeypatch.setattr(sys, "executable", "/opt/it's/python")
    assert command("list") == "'/opt/it'\"'\"'s/python' -m tune_cropshield list"


def test_a_path_is_no_flag() -> None:
    assert command("board", Path("-runs"))[-14:] == " board ./-runs"
    assert command_line("evaluate", "-runs/best", data="-leaves", seed=-1, split=None) == [
        *("evaluate", "./-runs/best", "--data=-leaves", "--seed=-1")
    ]
    assert command_line("search", learn_from=["-a", Path("b")], resume=True) == [
        *("search", "--learn-from", "./-a", "b", "--resume")
    ]


def test_packages_are_installed_into_this_environment() -> None:
    words = shlex.split(install_command("onnx"))
    assert words[-1] == "onnx" and "install" in words
    assert sys.executable in words or Path(words[0]).absolute() == Path(sys.executable)
