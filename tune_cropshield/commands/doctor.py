"""`doctor`: the machine, the photographs and published rules of thumb, measured here."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

PIPED_WIDTH = 160  # characters: a file has no edge, and 80 would fold every line


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
