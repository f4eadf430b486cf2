"""What the functions of the library are handed, brought into one form, and the command line that says the same."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.config.settings import PLACES, SIDE_FOLDERS, DataConfig
from tune_cropshield.errors import ConfigError, UserError
from tune_cropshield.shell import as_path

if TYPE_CHECKING:  # half a second to import: faulty arguments are told about before
    from tune_cropshield.search.views.view import SearchView

AnyPath = str | Path
AnyColumns = str | Mapping[str, str]
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


OF_PHOTOGRAPHS = ("data", "labels", "columns", "train", "val", "test")  # arguments: where photographs come from


def places_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what `given` says in [data] of where photographs and labels come from, with whole paths.

    A folder of classes takes the place of those of a split, and the other way round.

    Args:
        given: arguments, `OF_PHOTOGRAPHS` among them; None stands for one that was not given.

    Raises:
        UserError: two that exclude each other were given, or one is no path.
    """
    named = {name: given[name] for name in OF_PHOTOGRAPHS if given.get(name) is not None}
    sides, others = (
        [name for name in SIDE_FOLDERS if name in named],
        [name for name in named if name not in SIDE_FOLDERS],
    )
    if sides and others:
        raise ConfigError(
            [
                f"--{others[0]} and --{sides[0]} both say where photographs come from: give one folder or table, or "
                "--train, --val and --test"
            ]
        )
    if sides and not {"train", "val"} <= named.keys():
        missing = "val" if "train" in named else "train"
        raise ConfigError([f"--{sides[0]} needs --{missing} beside it: the folders of a split are given together"])
    found: dict[str, Any] = {
        {"data": "dir"}.get(name, name): str(path_of(value, f"--{name}").absolute())
        for name, value in named.items()
        if name != "columns"
    }
    if "columns" in named:
        found["columns"] = _columns(named["columns"])
    if sides:
        return {**dict.fromkeys(PLACES, ""), "columns": {}, **found}
    return {**(dict.fromkeys(SIDE_FOLDERS, "") if found.keys() & set(PLACES) else {}), **found}


def moved_to(begun: DataConfig, given: Mapping[str, Any]) -> DataConfig | None:
    """Returns [data] of something that was begun, with the photographs where `given` says; None where it does not.

    Of a table of labels, the folder that its paths begin in can move alone.
    """
    places = places_of(given)
    if not places:
        return None
    said = {name for name in PLACES if places.get(name)}
    stays = not said or (begun.labels and said == {"dir"})
    return begun.at({**({} if stays else dict.fromkeys(PLACES, "")), **places})


def with_whole_paths(config: DataConfig) -> DataConfig:
    """Returns [data] with the paths of photographs as seen from the root."""
    return config.at({name: str(Path(place).absolute()) for name, place in config.places.items() if place})


def columns_as_flag(columns: AnyColumns) -> str:
    """Returns what `--columns` is told."""
    return columns if isinstance(columns, str) else ",".join(f"{role}={name}" for role, name in columns.items())


def _columns(given: object) -> dict[str, str]:
    """Returns {role: column} of "path=image_id,label=disease"; raises ConfigError for another text."""
    if isinstance(given, Mapping):
        return {str(role): str(name) for role, name in given.items()}
    pairs = [pair.partition("=") for pair in str(given).split(",")]
    if not isinstance(given, str) or not all(mark and role.strip() for role, mark, _ in pairs):
        raise ConfigError([f"--columns: must be like path=image_id,label=disease, but got {given!r}"])
    return {role.strip(): name.strip() for role, _, name in pairs}


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
