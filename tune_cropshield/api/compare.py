"""`compare`: searches side by side."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.arguments import AnyPath, path_of
from tune_cropshield.api.names import search_named
from tune_cropshield.config.goals import VAL_ACC
from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.files import check_can_be_made

if TYPE_CHECKING:  # Optuna and SciPy take a second to import: a wrong folder is told about before
    from tune_cropshield.outcome.side_by_side import Side


@dataclass(frozen=True)
class Compared:
    """Searches side by side.

    Attributes:
        sides: what each search has found so far, in the order in which they were given.
        settings: (name, value of each search, in words) of each setting that is not the same in all of them.
        same_settings: how many settings are.
        best_settings: the same of the searches' results.
        same_best_settings: how many settings of the results are the same.
        results: (what, value of each search, in words).
        verdicts: sentences on whether the winners differ by more than chance gives.
        chart: compare.html, with the best value of each search over the epochs trained.
    """

    sides: list[Side] = field(repr=False)
    settings: list[tuple[str, ...]]
    same_settings: int
    best_settings: list[tuple[str, ...]]
    same_best_settings: int
    results: list[tuple[str, ...]]
    verdicts: list[str]
    chart: Path

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values."""
        names = [side.name for side in self.sides]
        sides = [
            {
                **{name: value for name, value in vars(side).items() if name not in ("settings", "judged", "curve")},
                "overview": side.overview.as_dict(),
                "photographs": len(side.judged) if isinstance(side.judged, list) else None,
                "curve": [list(point) for point in side.curve.items()],
            }
            for side in self.sides
        ]
        return {
            "searches": sides,
            "settings": {name: dict(zip(names, values, strict=True)) for name, *values in self.settings},
            "same_settings": self.same_settings,
            "best_settings": {name: dict(zip(names, values, strict=True)) for name, *values in self.best_settings},
            "same_best_settings": self.same_best_settings,
            "verdicts": self.verdicts,
            "chart": str(self.chart),
        }


def compare(*searches: AnyPath, to: AnyPath | None = None) -> Compared:
    """Returns searches side by side: what differs, what each found, whether their winners differ; and writes a chart.

    They may be running, interrupted or done.

    Args:
        searches: Two or more searches' folders, or their names in results/runs.
        to: The folder for compare.html; left out, the one that the first search lies in.

    Raises:
        UserError: A folder is no search, is damaged or given twice, or `to` cannot be written to.
        RunFailure: compare.html cannot be written.
    """
    if len(searches) < 2:
        raise UserError(f"two or more searches can be compared, but got {len(searches)}")
    folders = [search_named(search) for search in searches]
    whole = [os.path.realpath(folder) for folder in folders]
    twice = next((folder for folder, path in zip(folders, whole, strict=True) if whole.count(path) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} was given twice: give another search to compare it with")
    place = path_of(to, "--to") if to is not None else folders[0].absolute().parent
    check_can_be_made(place, "--to")
    from tune_cropshield.outcome.overview import overview
    from tune_cropshield.outcome.report.compared import write_compared
    from tune_cropshield.outcome.side_by_side import differing, read_side, verdicts
    from tune_cropshield.search.folder import holds_search

    sides = []
    for folder, name in zip(folders, _names(folders), strict=True):
        if not holds_search(folder):
            raise UserError(f"{folder} holds no search: compare takes searches only")
        about = overview(folder)
        if about.done is None:
            raise UserError(f"{folder} is damaged: {about.why}")
        try:
            sides.append(read_side(folder, name, about))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UserError(f"{folder} is damaged: {' '.join(str(error).split())}") from error
    settings, same = differing([side.settings for side in sides])
    best, same_best = differing([side.best_setting for side in sides if side.best_setting] or [{}])
    if any(not side.best_setting for side in sides):  # then a column would be missing
        names = [row[0] for row in best]
        best = [(name, *(side.best_setting.get(name, "–") for side in sides)) for name in names]
    results, told = _results(sides), verdicts(sides)
    of_best = [(f"best: {name}", *values) for name, *values in best]
    try:
        place.mkdir(parents=True, exist_ok=True)
        chart = write_compared(place, sides, [*results, *of_best], settings, told)
    except OSError as error:
        raise RunFailure(
            f"compare.html cannot be written to {place} ({error.strerror}): give another folder (--to)"
        ) from error
    return Compared(sides, settings, same, best, same_best, results, told, chart)


def _names(folders: list[Path]) -> list[str]:
    """Returns what searches are called: their folders' names, where these tell them apart, else their paths."""
    names = [folder.absolute().name for folder in folders]
    return [name if names.count(name) == 1 else str(folder) for name, folder in zip(names, folders, strict=True)]


def _results(sides: list[Side]) -> list[tuple[str, ...]]:
    from tune_cropshield.outcome import words

    def row(what: str, said: Any) -> tuple[str, ...]:
        return (what, *(said(side) for side in sides))

    def result(side: Side) -> str:
        if side.val_acc is None:
            return "–"
        number = "a starting point" if side.best_trial is None else f"trial {side.best_trial}"
        return f"final training of {number}" if side.final else number

    goals = {side.goal for side in sides}
    of_goals = []
    if goals != {VAL_ACC}:
        of_goals.append(row("went by", lambda side: side.goal.named(side.value) + side.spread))
    return [
        row("state", lambda side: side.overview.state),
        row("trials that ended", lambda side: f"{side.overview.done} of {side.overview.of}"),
        row("result", result),
        *of_goals,
        row("val_acc", lambda side: words.accuracy(side.val_acc) + (side.spread if side.goal.is_accuracy else "")),
        row("95 % interval", lambda side: words.share_interval(side.interval) if side.interval is not None else "–"),
        row("validated on", lambda side: str(len(side.judged)) if isinstance(side.judged, list) else "–"),
        row("test_acc", lambda side: words.accuracy(side.test_acc)),
        row("epochs trained", lambda side: str(side.epochs)),
        row("time", lambda side: words.seconds(side.seconds)),
    ]
