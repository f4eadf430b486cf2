"""What a stranger's file system may hold: names that are no UTF-8 or break a line, pipes, merges into nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tune_cropshield.api.predict import photographs_of
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.folder import list_folder
from tune_cropshield.data.left_out import left_out_lines
from tune_cropshield.errors import UserError
from tune_cropshield.files import check_can_be_made, printable, read_csv, write_csv, write_text_atomically

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="only there may a file's name be anything")


def test_a_byte_of_a_name_that_is_no_utf8_is_written_as_its_escape(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "names.csv", os.fsdecode(b"caf\xe9\n"))

    assert (tmp_path / "names.csv").read_text(encoding="utf-8") == "caf\\udce9\n"


def test_names_survive_a_table_that_is_utf8(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.jpg"), "line\nbreak.jpg", "Ro\u00f1a, 2.jpg"]
    write_csv(tmp_path / "names.csv", ["name"], [[name] for name in names])

    assert "caf\\udce9.jpg" in (tmp_path / "names.csv").read_text(encoding="utf-8")
    assert [row["name"] for row in read_csv(tmp_path / "names.csv")] == names

    (tmp_path / "earlier.csv").write_bytes(b"name\ncaf\xe9.jpg\n")
    assert [row["name"] for row in read_csv(tmp_path / "earlier.csv")] == names[:1]


def test_what_breaks_a_line_or_a_terminal_is_shown_as_its_escape() -> None:
    assert printable("a\nb\tc\x1b[31m\u2028d") == "a\\nb\\tc\\x1b[31m\\u2028d"
    assert printable(os.fsdecode(b"caf\xe9")) == "caf\\udce9"
    assert printable("Ro\u00f1a \u00d7 \u6676\u3000\u200d") == "Ro\u00f1a \u00d7 \u6676\u3000\u200d"


@ON_LINUX
def test_classes_and_what_is_left_out_bear_names_that_can_be_written(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"ru\nst"):
        (tmp_path / os.fsdecode(name)).mkdir()
        (tmp_path / os.fsdecode(name) / "1.jpg").write_bytes(name)
    (tmp_path / "lo\x1bose.jpg").write_bytes(b"loose")
    listed = list_folder(tmp_path)

    assert listed.classes == ("caf\\udce9", "ru\\nst")
    assert left_out_lines(listed.left_out) == ["left out: 1 photograph in no class folder: lo\\x1bose.jpg"]


@pytest.mark.parametrize("flag", ["data", "out"])
@ON_LINUX
def test_a_folder_that_no_settings_file_can_name_is_refused(flag: str, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"feuill\xe9s")
    if flag == "data":
        with pytest.raises(ValueError, match=r"must be UTF-8, as a settings file is, but got .*feuill\\udce9s: rename"):
            DataConfig(dir=str(folder))
    else:
        with pytest.raises(UserError, match=r"feuill\\udce9s cannot be used: its name must be UTF-8; give another"):
            check_can_be_made(folder, "--out")


def test_a_photograph_counts_once_in_whichever_way_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaves = tmp_path / "leaves"
    leaves.mkdir()
    for name in ("1.jpg", "2.jpg"):
        (leaves / name).write_bytes(b"a photograph")
    (tmp_path / "link").symlink_to(leaves)
    monkeypatch.chdir(leaves)
    first = Path("1.jpg")
    named = [first, leaves / first, Path("..", "leaves", first), tmp_path / "link" / first, Path(".")]

    assert len(photographs_of(named, print)) == 2
    assert photographs_of(named, print)[0] == first


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes among files")
def test_a_pipe_is_no_photograph_and_is_not_waited_for(tmp_path: Path) -> None:
    for folder in ("healthy", "rust"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(folder.encode())
    os.mkfifo(tmp_path / "rust" / "leaf.jpg")

    with pytest.raises(UserError, match=r"leaf\.jpg: neither a file nor a folder"):
        photographs_of([tmp_path / "rust" / "leaf.jpg"], print)
    assert left_out_lines(list_folder(tmp_path).left_out) == [
        "left out: 1 special file (a pipe, a socket or a device): rust/leaf.jpg"
    ]


def test_classes_are_not_merged_into_nothing() -> None:
    with pytest.raises(ValueError, match='`merge` must name a class, but "healthy" is to become ""'):
        DataConfig(merge={"healthy": " "})
