"""Which stores are being used, and when each was used last.

cache_dir/<key>.use-<process>-*   held for as long as a process has the store open; one that was killed holds nothing
cache_dir/<key>/index.json        was modified when the store was used last, whatever the file system notes of reads
"""

from __future__ import annotations

import os
import secrets
import weakref
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from tune_cropshield.data.store_files import INDEX

MARK = ".use-"


def note_use(path: Path, store: object) -> None:
    """Notes that the store at `path` is used now, and goes on being used for as long as `store` is in memory.

    The caller holds the store's lock.
    """
    os.utime(path / INDEX)
    is_in_use(path)  # removes what ended processes left
    mark = FileLock(path.with_name(f"{path.name}{MARK}{os.getpid()}-{secrets.token_hex(4)}"), thread_local=False)
    mark.acquire()
    weakref.finalize(store, _let_go, mark)


def _let_go(mark: FileLock) -> None:
    mark.release(force=True)
    with suppress(OSError):
        os.unlink(mark.lock_file)


def last_used(path: Path) -> float:
    """Returns when the store at `path` was used last, in seconds since 1970. Raises OSError where there is none."""
    return (path / INDEX).stat().st_mtime


def is_in_use(path: Path) -> bool:
    """Tells whether some process has the store at `path` open. The caller holds the store's lock."""
    held = False
    for place in path.parent.glob(f"{path.name}{MARK}*"):
        try:
            with FileLock(place, timeout=0):
                pass
        except Timeout:
            held = True
        else:
            place.unlink(missing_ok=True)
    return held
