"""`report`: a search as one HTML file."""

from __future__ import annotations

import argparse

from tune_cropshield.commands import arguments
from tune_cropshield.files import printable

HELP = "write a search's report.html"
DESCRIPTION = "Writes SEARCH_DIR/report.html, which opens offline."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "search_dir",
        type=arguments.path,
        metavar="SEARCH_DIR",
        help="a search's folder, or its name in results/runs; it may be running or interrupted",
    )


def run(args: argparse.Namespace) -> int:
    """Writes SEARCH_DIR/report.html and prints its path."""
    from tune_cropshield.api.report import report

    print(printable(report(args.search_dir)))
    return 0
