"""Types of the arguments that several commands take: text of the command line -> value, or what is wrong with it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tune_cropshield.api.arguments import OF_PHOTOGRAPHS
from tune_cropshield.config.registry import METRICS as KNOWN
from tune_cropshield.shell import command

METRIC = f"what decides what is best: {', '.join(KNOWN)}, or your own as FILE.py:NAME (default: val_acc)"


def path(text: str) -> Path:
    """Returns a path that the system can look at, whether anything is there or not; ~ is the home folder.

    A shell leaves the ~ in --data=~/leaves alone.
    """
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    path = Path(os.path.expanduser(text))
    try:
        path.exists()
    except OSError as error:  # no permission to look, or a name that is too long
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    return path


def add_photographs(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds the flags that say where photographs and labels come from. default: where, without any of them."""
    parser.add_argument(
        "--data",
        type=path,
        metavar="DIR",
        help=f"folder with one sub-folder of photographs per class (default: {default})",
    )
    add_labels(parser)
    for side, what in (("train", "train on"), ("val", "validate on"), ("test", "look at in the end, if you like")):
        parser.add_argument(
            f"--{side}",
            type=path,
            metavar="DIR",
            help=f"your own split: a folder like that of --data, to {what}",
        )


def add_labels(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a table of labels."""
    parser.add_argument(
        "--labels",
        type=path,
        metavar="FILE",
        help="table of labels (.csv, .parquet, .jsonl) with the columns path and label, and if you like split, group, "
        "fold and weight; paths begin in --data, or else in the table's folder",
    )
    parser.add_argument(
        "--columns",
        metavar="path=NAME,label=NAME",
        help="which columns of the table these are, where they have other names",
    )


def photographs(args: argparse.Namespace) -> dict[str, Any]:
    """Returns what the flags of `add_photographs` were given, as the library takes it."""
    return {name: getattr(args, name) for name in OF_PHOTOGRAPHS}


def whole_number(text: str) -> int:
    """Returns a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number, but got {text!r}") from None


def count_or_auto(text: str) -> int | str:
    """Returns a number as such; what else is allowed is the space's business."""
    try:
        return int(text)
    except ValueError:
        return text


def moved(to: str) -> Callable[[str], NoReturn]:
    """Returns the type of a flag that is a command of its own now: any value is answered with that command."""

    def refuse(text: str) -> NoReturn:
        raise argparse.ArgumentTypeError(f"is a command of its own now:  {command(to, Path(text))}")

    return refuse
