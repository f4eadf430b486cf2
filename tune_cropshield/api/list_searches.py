"""`list`: the searches and trainings in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.api.arguments import AnyPath, path_of
from tune_cropshield.api.space import RUNS
from tune_cropshield.errors import UserError

if TYPE_CHECKING:  # Optuna takes a third of a second to import: a wrong folder is told about before
    from tune_cropshield.outcome.overview import Overview


def list_searches(folder: AnyPath | None = None) -> list[Overview]:
    """Returns the searches and trainings in a folder, at whatever depth, or the one that it is; the newest first.

    One that is damaged is told of with what is wrong. Nothing is written, and neither PyTorch nor Ray is loaded.

    Args:
        folder: Left out, results/runs, where no folder means no searches.

    Raises:
        UserError: The folder is not there, or cannot be read.
    """
    root = path_of(folder, "DIR") if folder is not None else RUNS
    if folder is None and not root.exists():
        return []
    _check(root)
    from tune_cropshield.outcome.overview import find_folders, overview

    found = [overview(each) for each in find_folders(root)]
    return sorted(found, key=lambda one: -one.begun.timestamp() if one.begun is not None else 0.0)


def _check(root: Path) -> None:
    if not root.is_dir():
        raise UserError(f"DIR {root}: {'is not a folder' if root.exists() else 'there is no such folder'}")
    try:
        next(root.iterdir(), None)
    except OSError as error:
        raise UserError(f"DIR {root}: cannot be read ({error.strerror})") from None
