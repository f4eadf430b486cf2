"""Which search is meant: a folder's path, or the name of a search below results/runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from tune_cropshield.api.arguments import AnyPath, path_of
from tune_cropshield.api.space import RUNS
from tune_cropshield.config.closest import closest
from tune_cropshield.errors import UserError
from tune_cropshield.files import printable
from tune_cropshield.training.run_folder import CONFIG

MOST_MEANT = 3  # names that are offered in place of one that does not exist


def search_named(given: AnyPath, flag: str = "SEARCH_DIR") -> Path:
    """Returns the folder that `given` names: its path, or the name of a search, a training or a trial in results/runs.

    A folder of that name that holds neither does not hide the search. What is wrong with a folder that exists is its
    reader's business.

    Raises UserError where there is nothing of that name, with the names that may be meant.
    """
    path = path_of(given, flag)
    below = RUNS / path
    if _holds_any(path):
        return path
    if not path.is_absolute() and _holds_any(below):
        return below
    if path.exists():
        return path
    if near := _near(path):
        hint = f"; did you mean {' or '.join(near)}?"
    else:
        hint = "" if path.is_absolute() else f", nor is there one of that name in {RUNS} (list shows all)"
    raise UserError(f"{flag} {printable(path)}: there is no such folder{hint}")


def run_named(given: AnyPath, flag: str = "RUN_DIR") -> Path:
    """Returns the folder of a trained network as `search_named` does; of a search, that of its winner."""
    from tune_cropshield.config.space import SETTINGS
    from tune_cropshield.outcome.trained import BEST

    folder = search_named(given, flag)
    best = folder / BEST
    return best if (folder / SETTINGS).is_file() and (best / CONFIG).is_file() else folder


def _holds_any(folder: Path) -> bool:
    from tune_cropshield.config.space import SETTINGS

    try:
        return any((folder / name).is_file() for name in (SETTINGS, "study.journal", CONFIG))
    except OSError:  # a name that is too long behind results/runs, a folder that may not be looked at
        return False


def _near(path: Path) -> list[str]:
    """Returns the names in results/runs that are like a path which does not exist, the most alike first."""
    from tune_cropshield.outcome.overview import find_folders

    asked = str(path.relative_to(RUNS) if path.is_relative_to(RUNS) else path)
    names = [str(folder.relative_to(RUNS)) for folder in find_folders(RUNS)]
    return [printable(name) for name in nearest(asked, names)]


def nearest(asked: str, names: Sequence[str]) -> list[str]:
    """Returns which of `names` may be meant by `asked`, the most alike first, at most three: those that hold it, then
    those that are spelled much like it, as a whole or in their last part.
    """
    holding = sorted(
        (name for name in names if asked.casefold() in name.casefold()), key=lambda name: (len(name), name)
    )
    last_parts = {os.path.basename(name): name for name in names}
    like = [last_parts[part] for part in closest(asked, last_parts, MOST_MEANT)]
    return list(dict.fromkeys([*holding, *closest(asked, names, MOST_MEANT), *like]))[:MOST_MEANT]
