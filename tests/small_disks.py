"""Disks that are small, full or read-only, for tests that may mount one."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from machine_changes import skip_unless_allowed


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mounts a file system in memory at `folder` for as long as the block runs.

    Skips the test where the environment (see machine_changes.py) or the system does not allow it.
    """
    skip_unless_allowed("mount a small disk")
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path, leave_bytes: int = 0) -> Path:
    """Takes all of a disk but `leave_bytes` (in whole pages), and returns the file that does: delete it to make
    space.
    """
    filler = disk / "filler"
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with open(filler, "rb+") as file:
        file.truncate(max(filler.stat().st_size - leave_bytes, 0))
    return filler
