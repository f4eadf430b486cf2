"""What lies in the cache folder, and what of it may go.

Only what this program has made is ever touched: it is known by its name. Links are left alone, and so is what they lead
to.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tune_cropshield.data.store_files import DamagedStore, read_index
from tune_cropshield.data.store_use import is_in_use, last_used

STORE = re.compile(r"[0-9a-f]{16}")
KILLED_BUILD = re.compile(r"([0-9a-f]{16})\.tmp-\d+-[0-9a-f]+")
EXTRACTED = re.compile(r"extracted-[0-9a-f]{16}(\.\d+-[0-9a-f]+)?")
OLD_S = 30 * 86400.0  # not used for so long, stores are offered for removal
DIGESTS = "digests.json"


@dataclass(frozen=True)
class CachedStore:
    """One store of decoded photographs.

    photographs, folder, classes, side, fit: as its index tells; None where that is damaged. side: of a kept picture, in
    px. image_size: what it is kept for. last_used: in seconds since 1970. in_use: a process has it open.
    """

    path: Path
    size_bytes: int
    last_used: float
    in_use: bool
    folder: Path | None
    photographs: int | None
    classes: int | None
    side: int | None
    fit: str | None

    @property
    def image_size(self) -> int | None:
        """The side of the images that networks get, in px."""
        from tune_cropshield.data.preparation import Preparation

        if self.side is None or self.fit is None:
            return None
        sizes = range(self.side, 0, -1)
        return next((size for size in sizes if Preparation(size, self.fit).store_side == self.side), None)  # type: ignore[arg-type]

    def is_old(self, age_s: float = OLD_S) -> bool:
        """Tells whether it was not used for so long, and is not being used."""
        return not self.in_use and time.time() - self.last_used >= age_s


def cached_stores(cache_dir: Path) -> list[CachedStore]:
    """Returns the stores in `cache_dir`, those used last first."""
    found = [_store(path) for path in _entries(cache_dir, STORE) if path.is_dir()]
    return sorted(found, key=lambda store: -store.last_used)


def old_stores(cache_dir: Path) -> tuple[int, int]:
    """Returns how many stores were not used for a month, and their bytes. Nothing of them is read."""
    old = [
        size_of(path)
        for path in _entries(cache_dir, STORE)
        if path.is_dir() and time.time() - _used(path) >= OLD_S and not _in_use(path)
    ]
    return len(old), sum(old)


def killed_builds(cache_dir: Path) -> list[Path]:
    """Returns what builds that were killed have left, and those that are going on."""
    return [path for path in _entries(cache_dir, KILLED_BUILD) if path.is_dir()]


def extracted(cache_dir: Path) -> list[Path]:
    """Returns the folders of photographs that were taken out of Parquet files, half-written ones among them."""
    return [path for path in _entries(cache_dir, EXTRACTED) if path.is_dir()]


def remove_store(path: Path) -> bool:
    """Removes the store at `path`, and returns whether it did: not one that is used or built. Raises OSError.

    It is renamed first: a kill half-way leaves a build that was killed, which the next one clears away.
    """
    try:
        with FileLock(path.with_name(f"{path.name}.lock"), timeout=0):
            if not path.exists():  # somebody else has removed it
                return True
            if is_in_use(path):
                return False
            aside = path.with_name(f"{path.name}.tmp-0-0")
            if aside.is_symlink():
                return False
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            shutil.rmtree(aside)
    except Timeout:
        return False
    return True


def remove_killed_build(path: Path) -> bool:
    """Removes what a build that was killed has left, and returns whether it did: not one that goes on."""
    key = path.name.partition(".tmp-")[0]
    try:
        with FileLock(path.with_name(f"{key}.lock"), timeout=0):
            shutil.rmtree(path, ignore_errors=True)
    except Timeout:
        return False
    return True


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files below a folder. Links are neither counted nor followed."""
    if path.is_symlink():
        return 0
    try:
        return sum(map(size_of, path.iterdir())) if path.is_dir() else path.stat().st_size
    except OSError:  # removed meanwhile, or not to be looked at
        return 0


def _entries(cache_dir: Path, name: re.Pattern[str]) -> Iterator[Path]:
    try:
        paths = sorted(cache_dir.iterdir())
    except OSError:  # there is no cache yet, or it must not be looked at
        return
    for path in paths:
        if name.fullmatch(path.name) and not path.is_symlink():
            yield path


def _store(path: Path) -> CachedStore:
    try:
        index = read_index(path)
        told = (Path(index["root"]), len(index["paths"]), len(index["classes"]), index["size"], index["fit"])
    except DamagedStore:
        return CachedStore(path, size_of(path), _used(path), _in_use(path), None, None, None, None, None)
    return CachedStore(path, size_of(path), _used(path), _in_use(path), *told)


def _used(path: Path) -> float:
    try:
        return last_used(path)
    except OSError:  # a store that was damaged
        return path.stat().st_mtime


def _in_use(path: Path) -> bool:
    """Tells whether a store is used or built; in a cache that must not be written to, no."""
    try:
        with FileLock(path.with_name(f"{path.name}.lock"), timeout=0):
            return is_in_use(path)
    except Timeout:
        return True
    except OSError:
        return False
