"""`stop`: a search that runs, or one of its trials, from another terminal."""

from __future__ import annotations

import argparse
from functools import partial

from rich.console import Console

from tune_cropshield.commands import arguments
from tune_cropshield.terminal import say

HELP = "stop a running search, or one of its trials"
DESCRIPTION = (
    "Stops a search that runs in another terminal, as Ctrl-C there does: best/ and the report are written, "
    "and search --resume continues it. With TRIAL, only that trial stops, at the end of its epoch, and the search "
    "continues with the next."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("search_dir", type=arguments.path, metavar="SEARCH_DIR", help="the running search's folder")
    parser.add_argument(
        "trial", nargs="?", metavar="TRIAL", help="number or name (3 or t003) of a trial (default: the whole search)"
    )


def run(args: argparse.Namespace) -> int:
    """Stops, and says what came of it. Exit code 1 where it did not stop."""
    from tune_cropshield.api.stop import stop

    console = Console(soft_wrap=True, highlight=False)
    result = stop(args.search_dir, args.trial, told=partial(say, console))
    say(console, result.said)
    return 0 if result.stopped else 1
