"""Tables and sentences for people, in a terminal of any width and in a pipe; values for programs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any, Literal

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_cropshield.files import printable
from tune_cropshield.terminal import say

PIPE_WIDTH = 100_000  # characters: a pipe has no edge to fold at
# How a column is brought into a narrow terminal: a word is cut short, down to so many letters, then a name is folded
# into several lines; numbers and what else must be read as a whole stay as they are.
Kind = Literal["name", "word", "whole", "number"]
NARROWEST = {"word": 8, "name": 16}


def console() -> Console:
    """Returns where tables are printed: folded at a terminal's edge, and nowhere in a pipe."""
    found = Console(highlight=False, markup=False, emoji=False)
    if not found.is_terminal:
        found.width = PIPE_WIDTH
    return found


def print_table(
    where: Console, columns: Sequence[tuple[str, Kind]], rows: Sequence[Sequence[object]], *, drop: bool = False
) -> int:
    """Prints rows under headers, letter by letter: a stranger's name is no markup, and breaks no line.

    drop: the last columns are left out where a terminal is too narrow for them. Returns how many were.
    """
    columns = [(printable(header), kind) for header, kind in columns]
    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [
        max(cell_len(header), *(cell_len(row[place]) for row in cells), 0) for place, (header, _) in enumerate(columns)
    ]
    left_out = 0
    while drop and len(widths) > 1 and sum(widths) + len(widths) - 1 > where.width:
        widths.pop()
        left_out += 1
    columns = columns[: len(widths)]
    _narrow(widths, [kind for _, kind in columns], where.width - (len(columns) - 1))
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for (header, kind), width in zip(columns, widths, strict=True):
        table.add_column(
            Text(header),
            justify="right" if kind == "number" else "left",
            overflow="fold" if kind == "name" else "ellipsis",
            no_wrap=kind != "name",
            width=width,
        )
    for row in cells:
        table.add_row(*map(Text, row[: len(widths)]))
    where.print(table, crop=False)
    return left_out


def _narrow(widths: list[int], kinds: Sequence[Kind], available: int) -> None:
    """Makes columns narrower, the widest of a kind first, until they fit or may be no narrower."""
    for kind, narrowest in NARROWEST.items():
        places = [place for place, each in enumerate(kinds) if each == kind]
        while (excess := sum(widths) - available) > 0:
            place = max(places, key=lambda place: widths[place], default=None)
            if place is None or widths[place] <= narrowest:
                break
            second = max((widths[other] for other in places if other != place), default=0)
            widths[place] = max(widths[place] - excess, min(second, widths[place] - 1), narrowest)


def print_lines(where: Console, lines: Sequence[str]) -> None:
    """Prints sentences; see `say`."""
    for line in lines:
        say(where, line)


def print_json(value: object) -> None:
    """Prints one JSON value; what is no number in JSON (NaN, infinity) is null."""
    json.dump(_finite(value), sys.stdout, indent=2, default=str)
    print()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
