"""`doctor`: the machine, the photographs and published rules of thumb, measured here."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from tune_cropshield.commands import arguments

PIPED_WIDTH = 160  # characters: a file has no edge, and 80 would fold every line


HELP = "check the machine, the photographs and published rules of thumb"
DESCRIPTION = (
    "Looks at the machine and the photographs, and measures on this device whether published rules of thumb hold."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    arguments.add_photographs(parser, "that of the file, or a synthetic data set")
    parser.add_argument(
        "--config",
        type=arguments.path,
        metavar="FILE.toml",
        help="use the [data] settings of this file, as train does",
    )
    parser.add_argument(
        "--space", metavar="FILE.toml", help="use the [data] settings of this search space, as search does"
    )
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="network to measure (default: cropshield_cnn, on a GPU also efficientnet_b0)",
    )
    parser.add_argument("--script", type=arguments.moved("check-script"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints what was found. Findings are results, not failures: the exit code is 0."""
    from tune_cropshield.api.doctor import examine

    with Console(stderr=True).status("looking at the machine") as status:
        found = examine(
            **arguments.photographs(args),
            config=args.config,
            space=args.space,
            model=args.model,
            tell=lambda what: status.update(f"measuring {what}"),
        )
    if args.json:
        print(json.dumps(found.as_dict(), indent=2))
        return 0
    from tune_cropshield.doctor.report import show

    console = Console(highlight=False)
    show(found, console if console.is_terminal else Console(highlight=False, width=PIPED_WIDTH))
    return 0
