"""`cache`: what is kept between runs, how large it is and how old; and its removal."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cropshield.config.places import MEASUREMENTS, cache_dir
from tune_cropshield.config.units import parse_duration
from tune_cropshield.data.cached import (
    DIGESTS,
    CachedStore,
    cached_stores,
    extracted,
    killed_builds,
    remove_killed_build,
    remove_store,
    size_of,
)
from tune_cropshield.data.generated import SYNTHETIC
from tune_cropshield.errors import UserError


@dataclass(frozen=True)
class CacheResult:
    """What the cache holds, after the removal where one was asked for. Sizes are in bytes.

    folder: the cache. size_bytes: of all that follows. stores: decoded photographs, those used last first.
    measurements: files of measured memory plans. half_built: what builds that go on, or were killed, have written.
    synthetic_bytes: of the photographs that searches without --data are made on. digests_bytes: of the file that spares
    unchanged photographs their reading. extracted_bytes: of photographs that were taken out of Parquet files.

    removed_bytes: what was removed. removed: its stores. kept: of the stores that were to be removed, those in use.
    """

    folder: Path
    stores: tuple[CachedStore, ...]
    measurements: tuple[Path, ...]
    measurements_bytes: int
    half_built_bytes: int
    synthetic_bytes: int
    digests_bytes: int
    extracted_bytes: int = 0
    removed_bytes: int = 0
    removed: tuple[CachedStore, ...] = ()
    kept: tuple[CachedStore, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The bytes of everything."""
        stores = sum(store.size_bytes for store in self.stores)
        rest = self.half_built_bytes + self.synthetic_bytes + self.digests_bytes + self.extracted_bytes
        return stores + self.measurements_bytes + rest

    @property
    def old(self) -> tuple[CachedStore, ...]:
        """The stores that were not used for a month."""
        return tuple(store for store in self.stores if store.is_old())

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values: `cache --json` prints it. Times are seconds since 1970."""
        return {
            "dir": str(self.folder),
            "bytes": self.size_bytes,
            "stores": [_as_dict(store) for store in self.stores],
            "measurements": {"files": len(self.measurements), "bytes": self.measurements_bytes},
            "half_built_bytes": self.half_built_bytes,
            "synthetic_bytes": self.synthetic_bytes,
            "digests_bytes": self.digests_bytes,
            "extracted_bytes": self.extracted_bytes,
            "removed": [_as_dict(store) for store in self.removed],
            "removed_bytes": self.removed_bytes,
            "kept_in_use": [_as_dict(store) for store in self.kept],
        }


def _as_dict(store: CachedStore) -> dict[str, Any]:
    return {
        "dir": str(store.path),
        "data": str(store.folder) if store.folder is not None else None,
        "photographs": store.photographs,
        "classes": store.classes,
        "image_size": store.image_size,
        "fit": store.fit,
        "bytes": store.size_bytes,
        "last_used": round(store.last_used),
        "in_use": store.in_use,
        "old": store.is_old(),
    }


def cache(*, clear: bool = False, older_than: str | None = None) -> CacheResult:
    """Returns what is kept between runs in this user's cache folder; with `clear`, after removing it.

    Whatever is removed is made again when it is needed. What a process uses stays, and so do the synthetic photographs,
    links, and everything that this program has not made.

    Args:
        clear: Remove decoded photographs, measurements of memory and what killed builds have left.
        older_than: Only what was not used for so long, like "30d" or "12h".

    Raises:
        UserError: The duration is none, it was given without `clear`, or something must not be removed.
    """
    if older_than is not None and not clear:
        raise UserError("--older-than: says what cache clear removes; without clear, nothing is removed")
    folder = cache_dir()
    age_s = _seconds(older_than) if older_than is not None else 0.0
    removed: list[CachedStore] = []
    kept: list[CachedStore] = []
    before = _look(folder)
    if clear:
        try:
            for store in before.stores:
                if time.time() - store.last_used >= age_s:
                    (removed if remove_store(store.path) else kept).append(store)
            for build in killed_builds(folder):
                remove_killed_build(build)
            for path in extracted(folder):
                if time.time() - path.stat().st_mtime >= age_s:
                    shutil.rmtree(path, ignore_errors=True)
            for path in [*before.measurements, *_digests(folder)]:
                with suppress(FileNotFoundError):  # two clear at once
                    if time.time() - path.stat().st_mtime >= age_s:
                        path.unlink()
        except OSError as error:
            place = error.filename or folder
            raise UserError(f"{place} cannot be removed ({error.strerror}); others may have been") from None
    after = _look(folder)
    return CacheResult(
        folder,
        after.stores,
        after.measurements,
        after.measurements_bytes,
        after.half_built_bytes,
        after.synthetic_bytes,
        after.digests_bytes,
        after.extracted_bytes,
        max(before.size_bytes - after.size_bytes, 0) if clear else 0,
        tuple(removed),
        tuple(kept),
    )


def _seconds(older_than: str) -> float:
    try:
        return parse_duration(older_than)
    except UserError:
        raise UserError(f"--older-than: must be a duration like 30d or 12h, but got {older_than!r}") from None


def _look(folder: Path) -> CacheResult:
    probes = folder / MEASUREMENTS
    files = sorted(probes.glob("*.json")) if not probes.is_symlink() else []
    measurements = tuple(path for path in files if path.is_file() and not path.is_symlink())
    return CacheResult(
        folder,
        tuple(cached_stores(folder)),
        measurements,
        sum(map(size_of, measurements)),
        sum(map(size_of, killed_builds(folder))),
        sum(size_of(found) for pattern in SYNTHETIC for found in folder.glob(pattern)),
        sum(map(size_of, _digests(folder))),
        sum(map(size_of, extracted(folder))),
    )


def _digests(folder: Path) -> list[Path]:
    path = folder / DIGESTS
    return [path] if path.is_file() and not path.is_symlink() else []
