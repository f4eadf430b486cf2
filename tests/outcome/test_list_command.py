"""`list` in terminals of several widths, in a pipe and for programs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

from tune_cropshield.cli import main

HEADER = "name +model +data +state +trials val_acc begun"


@pytest.fixture
def runs(tmp_path: Path, drawn_leaves: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three searches in results/runs, the first with a short name, the second's is as long as a name may be; a training
    with a name that is markup; a search that is damaged.
    """
    monkeypatch.chdir(tmp_path)
    folder = Path("results/runs")
    invent_search(folder / "a", drawn_leaves, shared_cache, [InventedTrial(REFERENCE_SETTING, [0.5, 0.75])])
    shutil.copytree(folder / "a", folder / ("x" * 255))
    shutil.copytree(folder / "a", folder / "damaged")
    (folder / "damaged" / "study.journal").write_text("nonsense\n")
    shutil.copytree(folder / "a" / "t000", folder / "[red]lines\n[/]")
    return folder


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["list", *argv]) == 0
    return capsys.readouterr().out


def test_in_a_pipe_each_search_is_a_line_however_long_its_name(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = printed(capsys).splitlines()

    assert re.fullmatch(HEADER, lines[0].rstrip())
    rows = {line.split()[0]: line.split()[1:6] for line in lines[1:5]}
    assert rows == {
        "a": ["tiny_cnn", "leaves", "interrupted", "1/100", "0.7500"],
        "x" * 255: ["tiny_cnn", "leaves", "interrupted", "1/100", "0.7500"],
        "damaged": ["–", "–", "damaged", "–", "–"],
        "[red]lines\\n[/]": ["tiny_cnn", "leaves", "interrupted", "2/25", "ep."],
    }
    assert len(lines) == 6 and lines[5].startswith("damaged: study.journal is damaged: ")


@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_is_never_left_at_its_edge_and_no_name_is_cut(
    width: int, runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": str(width), "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)

    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed(capsys)).splitlines()

    assert max(map(len, lines)) <= width
    assert re.fullmatch(HEADER, lines[0].rstrip())
    names = "".join(line.split(" ")[0] for line in lines[1:])
    assert names.count("x") == 255 and "[red]lines\\n[/]" in names
    assert sum(" 0.7500 " in line for line in lines) == 3


def test_programs_get_all_facts(runs: Path, drawn_leaves: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {one["name"]: one for one in json.loads(printed(capsys, "results", "--json"))}

    one = found["runs/a"]
    assert {name: one[name] for name in ("folder", "kind", "state", "model", "data", "done", "of", "best_val_acc")} == {
        "folder": "results/runs/a",
        "kind": "search",
        "state": "interrupted",
        "model": "tiny_cnn",
        "data": str(drawn_leaves),
        "done": 1,
        "of": 100,
        "best_val_acc": 0.75,
    }
    assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", one["begun"])
    assert found["runs/damaged"]["why"].startswith("study.journal is damaged")


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a file's name be anything")
def test_names_that_are_no_utf8_are_shown_and_printed_for_programs(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(runs / "a", runs / os.fsdecode(b"caf\xe9"))

    assert "caf\\udce9 " in printed(capsys)
    assert "caf\udce9" in [one["name"] for one in json.loads(printed(capsys, "--json"))]


def test_a_search_itself_is_a_row_and_nothing_is_said_plainly(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, str(runs / "a")).splitlines()[1].split()[0] == "a"
    Path("elsewhere").mkdir()
    assert printed(capsys, "elsewhere") == "no searches in elsewhere\n"
    assert json.loads(printed(capsys, "elsewhere", "--json")) == []
    assert main(["list", "nowhere"]) == 2
    assert capsys.readouterr().err == "error: DIR nowhere: there is no such folder\n"
