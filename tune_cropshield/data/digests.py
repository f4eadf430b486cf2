"""The SHA-256 of every file of a folder, with a cache that spares unchanged files their reading."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tune_cropshield.data.listing import ListedImage

HASHING_THREADS = 8  # more than cores: a cold disk is waited for, not computed


def file_digests(root: Path, files: Sequence[ListedImage], digest_cache: Path | None) -> dict[str, str]:
    """Returns relative path -> SHA-256 in hex, without the files that have been deleted meanwhile.

    A file that may not or cannot be read has a digest of its own, made of its path: whoever decodes it says what is
    wrong and leaves it out.

    Args:
        files: below `root`, as they were listed.
        digest_cache: a JSON file {absolute path: [bytes, mtime_ns, SHA-256]}, read before hashing and brought up to
            date after it, so that an unchanged file is not read again; a damaged or unwritable one costs only time.
            None hashes every file.
    """
    known = _read_cache(digest_cache) if digest_cache is not None else {}
    absolute = {file.path: _absolute(root, file.path) for file in files}
    digests: dict[str, str] = {}
    unknown = []
    for file in files:
        entry = known.get(absolute[file.path])
        if isinstance(entry, list) and entry[:2] == [file.size, file.mtime_ns] and _is_digest(entry[2:]):
            digests[file.path] = entry[2]
        else:
            unknown.append(file)
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        for file, digest in zip(unknown, pool.map(_sha256, [absolute[file.path] for file in unknown]), strict=True):
            if digest is not None:
                digests[file.path] = digest
    unread = {file.path for file in unknown if digests.get(file.path) == instead_of_content(root, file.path)}
    if digest_cache is not None and unknown:
        inside = os.path.join(root, "")
        entries: dict[str, object] = {path: entry for path, entry in known.items() if not path.startswith(inside)}
        entries |= {
            absolute[file.path]: [file.size, file.mtime_ns, digests[file.path]]
            for file in files
            if file.path in digests.keys() - unread
        }
        _write_cache(digest_cache, entries)
    return digests


def _sha256(path: str) -> str | None:
    """Returns the digest, that of its path where the file cannot be read, or None when it is gone."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
    except OSError:
        return _of_unreadable(path)


def instead_of_content(root: Path, path: str) -> str:
    """Returns what `file_digests` gives the file `path` below `root` where it cannot be read."""
    return _of_unreadable(_absolute(root, path))


def _absolute(root: Path, path: str) -> str:
    return path if os.path.isabs(path) else os.path.join(root, *path.split("/"))


def _of_unreadable(path: str) -> str:
    return hashlib.sha256(f"unreadable {path}".encode(errors="surrogateescape")).hexdigest()


def _is_digest(rest: list[object]) -> bool:
    return len(rest) == 1 and isinstance(rest[0], str) and len(rest[0]) == 64


def _read_cache(path: Path) -> dict[str, object]:
    """Returns what the cache holds, or nothing when it is missing or damaged.

    Each entry is checked where it is used.
    """
    try:
        entries = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}


def _write_cache(path: Path, entries: dict[str, object]) -> None:
    """Replaces the cache in one step.

    Two writers at once: the last one wins, which costs the other one a second hashing.
    """
    aside = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(json.dumps(entries), encoding="ascii")
        os.replace(aside, path)
    except OSError:  # an optimisation only: a full or read-only disk is reported by whoever must write there
        with contextlib.suppress(OSError):
            aside.unlink()
