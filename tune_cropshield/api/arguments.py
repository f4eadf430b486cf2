"""What the functions of the library are handed, brought into one form, and the command line that says the same."""

from __future__ import annotations

import os
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.errors import UserError
from tune_cropshield.shell import as_path

if TYPE_CHECKING:  # half a second to import: faulty arguments are told about before
    from tune_cropshield.search.views.view import SearchView

AnyPath = str | Path
DeviceChoice = Literal["auto", "cpu", "cuda"]
Progress: TypeAlias = "bool | SearchView"
DEVICES = ("auto", "cpu", "cuda")


def path_of(given: AnyPath, flag: str) -> Path:
    """Returns `given` as a path, with ~ as the home folder.

    Raises UserError where it is none, empty, or the system cannot look at it.
    """
    if not isinstance(given, str | PathLike):
        raise UserError(f"{flag}: must be a path, but got {given!r}")
    if not str(given):
        raise UserError(f"{flag}: must not be empty")
    path = Path(os.path.expanduser(given))
    try:
        path.exists()
    except (OSError, ValueError) as error:  # no permission, a name that is too long, a null character
        raise UserError(f"{flag} {given}: {getattr(error, 'strerror', error)}") from None
    return path


def check_choice(flag: str, value: object, known: Sequence[str]) -> None:
    """Raises UserError where `value` is none of the words that `flag` takes."""
    if value not in known:
        hint = did_you_mean(str(value), known).rstrip()
        told = f"{flag}: must be one of {', '.join(known)}, but got {value!r}"
        raise UserError(f"{told}; {hint}" if hint else told)


def view_of(progress: Progress) -> SearchView:
    """Returns how progress is shown.

    True is a live table on a terminal and in Jupyter, lines in a pipe; False shows nothing; a view is taken as it is.
    """
    from rich.console import Console

    from tune_cropshield.search.views.choose import view_for
    from tune_cropshield.search.views.view import SearchView

    if isinstance(progress, SearchView):
        return progress
    if not isinstance(progress, bool):
        raise UserError(f"progress: must be True, False or a SearchView, but got {progress!r}")
    return view_for(Console(soft_wrap=True, highlight=False)) if progress else SearchView()


def command_line(command: str, *positional: object, **flags: object) -> list[str]:
    """Returns the words behind the program's name that say the same as a call of the library.

    Flags that are None or False are left out, True stands for the flag alone. A list's items, which are paths, follow
    its flag. A path or a value that begins with - is written so that it is not taken for a flag.
    """
    words = [command, *(as_path(str(path)) for path in positional)]
    for name, value in flags.items():
        if value is None or value is False:
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, list | tuple):
            words += [flag, *(as_path(str(path)) for path in value)]
        elif value is True:
            words.append(flag)
        else:
            words += [f"{flag}={value}"] if str(value).startswith("-") else [flag, str(value)]
    return words
