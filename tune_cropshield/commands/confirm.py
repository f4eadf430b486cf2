"""`confirm`: is a search's win larger than seed noise?"""

from __future__ import annotations

import argparse

from tune_cropshield.commands import arguments

HELP = "say whether a search's win is more than seed noise"
DESCRIPTION = (
    "Trains the best trials and the reference setting again over several seeds, and tests whether the win is "
    "more than seed noise."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "search_dir",
        type=arguments.path,
        metavar="SEARCH_DIR",
        help="a search's folder, or its name in results/runs; the same command goes on where it was stopped",
    )
    parser.add_argument(
        "--top",
        type=arguments.whole_number,
        default=3,
        metavar="N",
        help="best trials to train again (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds",
        type=arguments.whole_number,
        default=3,
        metavar="N",
        help="seeds for each, new ones (default: %(default)s)",
    )
    parser.add_argument("--data", type=arguments.path, metavar="DIR", help="the photographs, where they have moved")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="what to train on, instead of the search's")


def run(args: argparse.Namespace) -> int:
    """Trains the best trials and the reference setting again over several seeds, and says what that shows."""
    from tune_cropshield.api.confirm import confirm

    found = confirm(args.search_dir, top=args.top, seeds=args.seeds, data=args.data, device=args.device)
    return 0 if found.any_finished else 1
