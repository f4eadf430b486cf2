"""What a stranger's file system may hold: names that are no UTF-8, pipes among photographs, merges into nothing."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tune_cropshield.api.predict import photographs_of
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.errors import UserError
from tune_cropshield.files import write_text_atomically


def test_a_byte_of_a_name_that_is_no_utf8_is_written_as_its_escape(tmp_path: Path) -> None:
    write_text_atomically(tmp_path / "names.csv", os.fsdecode(b"caf\xe9\n"))

    assert (tmp_path / "names.csv").read_text(encoding="utf-8") == "caf\\udce9\n"


@pytest.mark.skipif(sys.platform == "win32", reason="there are no named pipes among files")
def test_a_pipe_is_no_photograph_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "leaf.jpg")

    with pytest.raises(UserError, match=r"leaf\.jpg: neither a file nor a folder"):
        photographs_of([tmp_path / "leaf.jpg"], print)


def test_classes_are_not_merged_into_nothing() -> None:
    with pytest.raises(ValueError, match='`merge` must name a class, but "healthy" is to join ""'):
        DataConfig(merge={"healthy": " "})
