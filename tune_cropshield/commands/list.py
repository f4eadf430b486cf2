"""`list`: the searches and trainings in a folder."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.commands import arguments

if TYPE_CHECKING:
    from tune_cropshield.outcome.overview import Overview

HELP = "list searches and trainings, the newest first"
DESCRIPTION = (
    "Lists the searches and trainings in a folder, at whatever depth, the newest first: name, network, photographs, "
    "how it stands, trials that have ended of all (of a training: epochs), best validation accuracy, and when it began."
)
RECENT = timedelta(days=180)  # as ls has it: what is older is shown with its year in place of the time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("dir", type=arguments.path, nargs="?", metavar="DIR", help="(default: results/runs)")
    parser.add_argument("--json", action="store_true", help="print one list, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints a row for each search and each training."""
    from tune_cropshield.api.list_searches import list_searches
    from tune_cropshield.api.space import RUNS
    from tune_cropshield.commands.tables import print_json

    found, root = list_searches(args.dir), args.dir or RUNS
    if args.json:
        print_json([{"name": name_of(one, root), **one.as_dict()} for one in found])
    else:
        _print(found, root)
    return 0


def name_of(one: Overview, root: Path) -> str:
    """Returns what a search is called: its path below `root`; its folder's name where it is `root` itself."""
    return one.folder.absolute().name if one.folder == root else str(one.folder.relative_to(root))


def _print(found: Sequence[Overview], root: Path) -> None:
    from tune_cropshield.commands.tables import Kind, console, print_lines, print_table
    from tune_cropshield.outcome import words

    where = console()
    if not found:
        return print_lines(where, [f"no searches in {root}"])
    others = any(one.metric is not None for one in found)
    of_others: list[tuple[str, Kind]] = [("metric", "whole")] if others else []
    columns: list[tuple[str, Kind]] = [
        ("name", "name"),
        ("model", "word"),
        ("data", "word"),
        ("state", "whole"),
        ("trials", "number"),
        ("val_acc", "number"),
        *of_others,
        ("begun", "whole"),
    ]
    now = datetime.now().astimezone()
    rows = [
        (
            name_of(one, root),
            one.model or "–",
            "–" if one.data is None else os.path.basename(one.data) or "drawn",
            one.state,
            _done(one),
            words.accuracy(one.best_val_acc),
            *([_goal(one)] if others else []),
            _when(one.begun, now),
        )
        for one in found
    ]
    print_table(where, columns, rows)
    print_lines(where, [f"{name_of(one, root)}: {one.why}" for one in found if one.why])


def _goal(one: Overview) -> str:
    """Returns what a search goes by that is not val_acc, with its best value."""
    if one.metric is None:
        return "val_acc"
    return one.metric if one.best_value is None else f"{one.metric} {one.best_value:.4f}"


def _done(one: Overview) -> str:
    if one.done is None:
        return "–"
    return f"{one.done}/{one.of if one.of is not None else '?'}{' ep.' if one.kind == 'training' else ''}"


def _when(begun: datetime | None, now: datetime) -> str:
    """Returns when that was in this machine's time, in twelve letters."""
    if begun is None:
        return "–"
    local = begun.astimezone()
    return local.strftime("%b %d %H:%M" if timedelta(0) <= now - local < RECENT else "%b %d  %Y")
