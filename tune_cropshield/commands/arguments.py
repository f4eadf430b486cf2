"""Types of the arguments that several commands take: text of the command line -> value, or what is wrong with it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from tune_cropshield.shell import command


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
