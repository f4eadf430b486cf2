"""`compare`: searches side by side."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tune_cropshield.commands import arguments

if TYPE_CHECKING:
    from tune_cropshield.api.compare import Compared

HELP = "show searches side by side"
DESCRIPTION = (
    "Shows two or more searches side by side: what differs in their settings, what each found, and whether their "
    "winners differ by more than chance would give. Writes a chart of the best value over the epochs trained."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "search_dirs",
        type=arguments.path,
        nargs="+",
        metavar="SEARCH_DIR",
        help="two or more searches' folders, or their names in results/runs",
    )
    parser.add_argument(
        "--to",
        type=arguments.path,
        metavar="DIR",
        help="folder for compare.html (default: the one that the first search lies in)",
    )
    parser.add_argument("--json", action="store_true", help="print one object, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints the searches side by side."""
    from tune_cropshield.api.compare import compare
    from tune_cropshield.commands.tables import print_json

    found = compare(*args.search_dirs, to=args.to)
    if args.json:
        print_json(found.as_dict())
    else:
        _print(found)
    return 0


def _print(found: Compared) -> None:
    from tune_cropshield.commands.tables import Kind, console, print_lines, print_table

    where, names = console(), [side.name for side in found.sides]

    def table(title: str, rows: list[tuple[str, ...]]) -> None:
        columns: list[tuple[str, Kind]] = [(title, "whole"), *((name, "name") for name in names)]
        print_table(where, columns, rows)

    table("result", found.results)
    where.print()
    if found.best_settings:
        table("best setting", found.best_settings)
    print_lines(where, [f"{found.same_best_settings} settings of the results are equal", ""])
    if found.settings:
        table("searched and set", found.settings)
    print_lines(where, [f"{found.same_settings} settings are equal", "", *found.verdicts, f"chart: {found.chart}"])
