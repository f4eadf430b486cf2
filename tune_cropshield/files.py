"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

from tune_cropshield.errors import RunFailure


def write_text_atomically(path: Path, text: str) -> None:
    """Writes `text` (UTF-8, `\\n` line ends) beside `path` and renames it: a reader or a kill never sees half of it."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Calls `write` with a binary file beside `path`, flushes it to the disk and renames it to `path`.

    Raises RunFailure when the disk is full; the old file, if any, is then untouched and nothing half-written is left.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(aside, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if is_disk_full(error):
            raise disk_full(path) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Tells whether `error` says that no space is left; torch.save reports it as a RuntimeError of its own."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return isinstance(error, RuntimeError) and "file write failed" in str(error)


def disk_full(path: Path) -> RunFailure:
    """Returns the one message for a full disk."""
    return RunFailure(f"no space left on the disk while writing {path}: free some, then go on with --resume")
