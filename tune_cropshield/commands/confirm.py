"""`confirm`: is a search's win larger than seed noise?"""

from __future__ import annotations

import argparse

from tune_cropshield.commands import arguments

HELP = "test whether a search's gain could be chance"
DESCRIPTION = (
    "Trains the best trials and trial 0 (the reference setting, or your baseline) again with several random seeds, "
    "and tests whether the gain could be chance."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "search_dir",
        type=arguments.path,
        metavar="SEARCH_DIR",
        help="a search's folder, or its name in results/runs; repeat the command to continue where it was stopped",
    )
    parser.add_argument(
        "--top",
        type=arguments.whole_number,
        default=3,
        metavar="N",
        help="how many of the best trials to train again (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=arguments.whole_number,
        default=3,
        metavar="N",
        help="how many new random seeds for each (default: %(default)s)",
    )
    arguments.add_photographs(parser, "where the search had them; give it if they have moved")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="what to train on (default: as the search)")


def run(args: argparse.Namespace) -> int:
    """Trains the best trials and the reference setting again over several seeds, and says what that shows."""
    from tune_cropshield.api.confirm import confirm

    found = confirm(args.search_dir, top=args.top, seeds=args.seeds, device=args.device, **arguments.photographs(args))
    return 0 if found.any_finished else 1
