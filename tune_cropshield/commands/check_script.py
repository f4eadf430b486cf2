"""`check-script`: training scripts, read for known mistakes."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from tune_cropshield.commands import arguments
from tune_cropshield.errors import UserError
from tune_cropshield.files import as_utf8, printable
from tune_cropshield.terminal import say

if TYPE_CHECKING:
    from tune_cropshield.check_script import Judgement

NOTHING_FOUND = "none of the known mistakes"


HELP = "look for known mistakes in training scripts"
DESCRIPTION = (
    "Looks for known mistakes of PyTorch training loops in scripts and notebooks, without running them, and says which "
    "parts it could not check."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "scripts",
        type=arguments.path,
        nargs="+",
        metavar="FILE|DIR",
        help="train.py, a notebook, or a folder: all scripts and notebooks in it",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON list, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints a line per finding, or with --json one list.

    Findings are results, not failures: the exit code is 0, and 2 where a file could not be read. The others are read
    all the same, and what could not be read is an object of the list too.
    """
    from tune_cropshield.check_script import check, scripts_in

    judged: dict[Path, Judgement] = {}
    refused: dict[Path, str] = {}
    folders: dict[Path, list[Path]] = {}
    for path in args.scripts:
        try:
            scripts = scripts_in(path)
        except UserError as error:
            refused[path] = str(error)
            continue
        if path.is_dir():
            folders[path] = scripts
        for script in scripts:
            if script not in judged and script not in refused:
                try:
                    judged[script] = check(script)
                except UserError as error:
                    refused[script] = str(error)
    if args.json:
        entries = [each for path, told in judged.items() for each in _as_json(path, told)]
        print(json.dumps([*entries, *(_refused_as_json(path, why) for path, why in refused.items())], indent=2))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for path, told in judged.items():
            named = path in args.scripts
            if named or told.findings or told.unjudged:
                _print(path, told, console)
        for folder, scripts in folders.items():
            told_of = [judged[path] for path in scripts if path in judged]
            say(console, _folder_told(folder, told_of, len(scripts)))
    for message in refused.values():
        print(f"error: {printable(message)}", file=sys.stderr)
    return 2 if refused else 0


def _as_json(path: Path, told: Judgement) -> list[dict[str, object]]:
    """Returns an object per finding, and one per part of the script that was not judged."""
    rows = [(each.line, each.rule, each.wrong, each.right) for each in told.findings]
    rows += [(line, "not-judged", what, "") for line, what in told.unjudged]
    if told.no_loop and not told.evaluates:
        rows.append((1, "not-judged", f"{told.no_loop}: nothing was judged", ""))
    found = []
    for line, rule, wrong, right in rows:
        cell, in_cell = told.source.place(line)
        place: dict[str, object] = {"line": line} if cell is None else {"cell": cell, "line": in_cell}
        found.append({"file": as_utf8(str(path)), **place, "rule": rule, "wrong": wrong, "right": right})
    return found


def _refused_as_json(path: Path, why: str) -> dict[str, object]:
    """Returns the object of a file or folder that could not be read, with the line that `why` names, else 1."""
    place = re.match(re.escape(f"{path}:") + r"(\d+): ", why)
    return {
        "file": as_utf8(str(path)),
        "line": int(place[1]) if place else 1,
        "rule": "not-judged",
        "wrong": why,
        "right": "",
    }


def _print(path: Path, told: Judgement, console: Console) -> None:
    def at(line: int) -> str:
        cell, in_cell = told.source.place(line)
        return f"{printable(path)}:{line}" if cell is None else f"{printable(path)}:cell {cell}:{in_cell}"

    for each in told.findings:
        line = Text(f"{at(each.line)}: ").append(each.rule, style="bold")
        say(console, line.append(f"  {each.wrong}").append("  -> ", style="dim").append(each.right))
    for number, what in told.unjudged:
        say(console, f"{at(number)}: not judged: {what}")
    say(console, f"{printable(path)}: {_summary(told)}")


def _summary(told: Judgement) -> str:
    """Returns what is said of a script as a whole. That nothing was found is only said of what was judged."""
    if told.findings:
        kinds = len({each.rule for each in told.findings})
        found = f"places to look at: {len(told.findings)}, kinds of mistake: {kinds}"
        return f"{found}; {told.no_loop}" if told.no_loop else found
    if told.no_loop:
        return f"{told.no_loop}: " + (f"{NOTHING_FOUND} in its evaluation" if told.evaluates else "nothing was judged")
    return f"{NOTHING_FOUND} in what was judged" if told.unjudged else NOTHING_FOUND


def _folder_told(folder: Path, told: list[Judgement], scripts: int) -> str:
    number = f"{scripts} scripts and notebooks" if scripts > 1 else "1 script or notebook"
    if not told:
        return f"{printable(folder)}: {number}, none of them could be read: nothing was judged"
    places = sum(len(each.findings) for each in told)
    unjudged = sum(len(each.unjudged) for each in told)
    unread = scripts - len(told)
    files = sum(bool(each.findings) for each in told)
    without = sum(bool(each.no_loop) and not each.evaluates for each in told)
    found = f"places to look at: {places} in {files} of them" if places else NOTHING_FOUND
    if not places and (unjudged or unread):
        found += " in what was judged"
    if without == len(told):
        found = f"{found}; no PyTorch training loop found" if places else "no PyTorch training loop found"
    elif without:
        found += f"; no PyTorch training loop in {without}"
    if unjudged:
        found += f"; not judged: {unjudged} part{'s' if unjudged > 1 else ''}"
    if unread:
        found += f"; could not be read: {unread}"
    return f"{printable(folder)}: {number}, {found}"
