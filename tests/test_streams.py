"""Output whose reader has gone, or that was never there: real pipes, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def run(shell: str, code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program of `code`, which `shell` calls PROGRAM, after `outlast_readers`."""
    head = "import os, sys\nfrom tune_cropshield.streams import failure_of_output, outlast_readers\noutlast_readers()\n"
    (tmp_path / "program.py").write_text(head + code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROGRAM": f"{sys.executable} {tmp_path / 'program.py'}"}
    return subprocess.run(
        ["bash", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


SAYS_MUCH = """
for number in range(20_000):
    print("line", number, flush=True)
    print("line", number, file=sys.stderr)
open("done", "w").write(repr(failure_of_output()))
"""


@pytest.mark.parametrize(
    "pipe", ["$PROGRAM | head -3", "$PROGRAM 2>&1 | head -3", "$PROGRAM 2>&1 >/dev/null | head -3"]
)
def test_a_program_outlives_its_reader(pipe: str, tmp_path: Path) -> None:
    done = run(f"{pipe}; exit ${{PIPESTATUS[0]}}", SAYS_MUCH, tmp_path)

    assert done.returncode == 0
    assert (tmp_path / "done").read_text() == "None"
    assert "Error" not in done.stderr


def test_a_file_does_not_take_the_place_of_an_output_that_is_closed(tmp_path: Path) -> None:
    code = """
with open("file", "w") as file:
    print("not for the file")
    print("not for the file", file=sys.stderr)
    os.system("echo nor this; echo nor this >&2")
    file.write(str(file.fileno() > 2))
"""
    done = run("$PROGRAM >&- 2>&- <&-", code, tmp_path)

    assert done.returncode == 0
    assert (tmp_path / "file").read_text() == "True"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
def test_a_full_disk_is_remembered_and_does_not_end_the_work(tmp_path: Path) -> None:
    done = run("$PROGRAM > /dev/full 2> /dev/null", SAYS_MUCH, tmp_path)

    assert done.returncode == 0
    assert (tmp_path / "done").read_text() == "OSError(28, 'No space left on device')"


def test_what_is_read_arrives_whole(tmp_path: Path) -> None:
    done = run("$PROGRAM", "print('ü', flush=True)\nprint('second')\nfailure_of_output()\nos._exit(0)", tmp_path)

    assert done.stdout == "ü\nsecond\n"
