"""With what, on what and on which photographs a search was started.

A line per start, for whoever reads its results later.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tune_cropshield
from tune_cropshield.files import as_utf8
from tune_cropshield.search.resources import Resources

if TYPE_CHECKING:  # PyTorch takes seconds to import: who reads the file does not need it
    from tune_cropshield.data.dataset import LeafData
    from tune_cropshield.device import Card

STARTS = "starts.jsonl"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%z"  # of "started"
PACKAGES = ("torch", "torchvision", "ray", "optuna")


def note_start(
    folder: Path,
    argv: Sequence[str],
    data: LeafData,
    resources: Resources,
    card: Card | None,
    named: Collection[str] = (),
) -> None:
    """Appends a line to starts.jsonl.

    Args:
        argv: the command line behind the program's name; its relative paths are seen from "folder".
        card: the GPU, None on a CPU.
        named: the settings of [data] and [search] that were set; search.toml holds all of them.
    """
    device: dict[str, Any] = {
        "device": resources.device,
        "cores": resources.cpus,
        "trials_at_once": resources.concurrent_trials,
    }
    if resources.device == "cuda":
        device |= {"gpus": resources.gpus, **({"gpu": card.name, "driver": card.driver} if card is not None else {})}
    split = data.split
    line = {
        "started": time.strftime(TIME_FORMAT),
        "argv": [as_utf8(word) for word in argv],
        "folder": as_utf8(os.getcwd()),
        "set": sorted(named),
        "photographs": len(data.store),
        "classes": len(data.classes),
        "train": len(split.train),
        "val": len(split.val),
        "test": len(split.test),
        **device,
        "platform": platform.platform(),
        "versions": {"tune-cropshield": tune_cropshield.__version__, "python": sys.version.split()[0], **_versions()},
    }
    with open(folder / STARTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a build of its own, without metadata
            found[name] = "unknown"
    return found


def read_starts(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of starts.jsonl, the oldest first; none for searches that kept none.

    A damaged line is passed over.
    """
    try:
        lines = (folder / STARTS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    starts = []
    for line in lines:
        try:
            start = json.loads(line)
        except ValueError:
            continue
        if isinstance(start, dict):
            starts.append(start)
    return starts
