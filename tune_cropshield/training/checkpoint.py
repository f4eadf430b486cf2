"""Everything a training needs to go on as if it had never stopped, in one file that appears whole or not at all."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch

from tune_cropshield.errors import RunFailure
from tune_cropshield.files import write_atomically

VERSION = 4


class DamagedCheckpoint(RunFailure):
    """The file is not what was written."""


def save_checkpoint(path: Path, state: dict[str, Any], keep_as: Path | None = None) -> None:
    """Writes `state` (tensors, numbers, strings, lists and dicts of these) aside, flushes it and renames it to `path`.

    keep_as: where the checkpoint before stays, in case this one is damaged later. Raises DiskFull; both are then as
    they were.
    """
    write_atomically(path, lambda file: torch.save({"version": VERSION, **state}, file), keep_as)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Returns what `save_checkpoint` wrote, tensors on the CPU; nothing in the file is executed (weights_only).

    Every byte is checked against the archive's own checksums first: torch.load does not. Raises DamagedCheckpoint
    naming the file when it is damaged, RunFailure when it is of another version, FileNotFoundError when it is not
    there.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise DamagedCheckpoint(f"{path} is damaged ({damaged} does not match its checksum)")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, DamagedCheckpoint):
        raise
    except Exception as error:  # a damaged archive can fail in any of its readers
        raise DamagedCheckpoint(f"{path} is damaged ({' '.join(str(error).split())})") from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise RunFailure(f"{path} is a checkpoint of another version: this one reads version {VERSION}")
    return state
