"""`export`: the best setting of a search for another program."""

from __future__ import annotations

import argparse

from tune_cropshield.commands.paths import check_can_be_made
from tune_cropshield.errors import UserError


def run(args: argparse.Namespace) -> int:
    """Prints the best trial's settings, or writes them into --to."""
    from tune_cropshield.files import write_text_atomically
    from tune_cropshield.outcome.export import exported

    if args.to is not None:
        check_can_be_made(args.to, "--to")
    name, text = exported(args.search_dir, args.format)
    if args.to is None:
        print(text, end="")
        return 0
    try:
        args.to.mkdir(parents=True, exist_ok=True)
        write_text_atomically(args.to / name, text)
    except OSError as error:
        raise UserError(f"{args.to} cannot be written to ({error.strerror})") from None
    print(args.to / name)
    return 0
