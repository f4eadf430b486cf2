"""`doctor`: the machine, the photographs and published rules of thumb, measured here."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from tune_cropshield.commands import arguments

PIPED_WIDTH = 160  # characters: a file has no edge, and 80 would fold every line


HELP = "check the machine, the photographs and published rules of thumb"
DESCRIPTION = "Examines the machine and the photographs, and checks published rules of thumb on this device."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "--data",
        type=arguments.path,
        metavar="DIR",
        help="one sub-folder of photographs per class; left out, that of the file, or a synthetic data set",
    )
    parser.add_argument(
        "--config",
        type=arguments.path,
        metavar="FILE.toml",
        help="read the photographs as its [data] says, as train does",
    )
    parser.add_argument("--space", metavar="FILE.toml", help="the same with a search space, as search does")
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="network to measure with (default: cropshield_cnn, and on a GPU efficientnet_b0 too)",
    )
    parser.add_argument("--script", type=arguments.moved("check-script"), help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="print one object, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints what was found. Findings are results, not failures: the exit code is 0."""
    from tune_cropshield.api.doctor import examine

    with Console(stderr=True).status("looking") as status:
        found = examine(
            data=args.data,
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
