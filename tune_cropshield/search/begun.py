"""Searches that were begun: their settings, when they were begun, and with which arguments."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tune_cropshield.config.space import SETTINGS, SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.errors import UserError
from tune_cropshield.search.launches import TIME_FORMAT, read_starts


@dataclass(frozen=True)
class Begun:
    """A search that was begun.

    Attributes:
        folder: its folder, as the user named it or below results/runs.
        space: what stands in its search.toml.
        began: when, by the clock of the place it was begun at; None where that is not known.
        given: the arguments that it was begun with, like "data" and "image_size"; None where that is not known.
        given_later: those of the starts after the first.
        named: the settings of [data] and [search] that its space, or an argument, set; empty where that is not known.
    """

    folder: Path
    space: SearchSpace
    began: datetime | None = None
    given: frozenset[str] | None = None
    given_later: frozenset[str] = frozenset()
    named: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.folder}" + (f", begun {self.began:%Y-%m-%d %H:%M}" if self.began is not None else "")


def read_begun(folder: Path) -> Begun:
    """Returns the search that was begun in `folder`.

    Raises UserError where there is none, or its settings cannot be read.
    """
    if not (folder / SETTINGS).exists():
        raise UserError(f"{folder} contains no search to continue ({SETTINGS} is missing)")
    starts = read_starts(folder)
    given = [_given(start.get("argv", [])) for start in starts]
    later = frozenset[str]().union(*given[1:])
    named = frozenset(starts[0].get("set", [])) if starts else frozenset[str]()
    return Begun(folder, load_space(folder / SETTINGS), _began(folder), given[0] if given else None, later, named)


def _given(argv: list[str]) -> frozenset[str]:
    """Returns the names of the flags in a command line; --no-baseline says something of `baseline`."""
    names = (word.partition("=")[0][2:].replace("-", "_") for word in argv if word.startswith("--"))
    return frozenset(name.removeprefix("no_") for name in names)


def _began(folder: Path) -> datetime | None:
    for start in read_starts(folder)[:1]:
        try:
            return datetime.strptime(start["started"], TIME_FORMAT)
        except (KeyError, TypeError, ValueError):
            return None
    return None


def newest_first(searches: list[Begun]) -> list[Begun]:
    """Returns searches by when they were begun; of the same second, NAME-2 is newer than NAME."""

    def age(search: Begun) -> tuple[float, int, str]:
        began = search.began.timestamp() if search.began is not None else (search.folder / SETTINGS).stat().st_mtime
        return began, len(search.folder.name), search.folder.name

    return sorted(searches, key=age, reverse=True)


def searches_below(place: Path) -> tuple[list[Begun], list[str]]:
    """Returns the searches in the sub-folders of `place`, the newest first, and why others cannot be read."""
    found, faults = [], []
    for settings in place.glob(f"*/{SETTINGS}"):
        try:
            found.append(read_begun(settings.parent))
        except (UserError, OSError) as error:  # of another version, or with a file of one's own that is gone
            faults.append(" ".join(str(error).split()))
    return newest_first(found), sorted(faults)
