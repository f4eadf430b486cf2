"""argv -> one call.

Heavy imports happen inside the commands; errors become exit codes: 2 the input is at fault, 1 it failed, 130
interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from tune_cropshield import __version__
from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.config.registry import fault_of_own_code
from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.files import is_disk_full
from tune_cropshield.shell import PROGRAM, command
from tune_cropshield.signals import on_ending_signal
from tune_cropshield.streams import failure_of_output, outlast_readers

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes; 0: done
# In the order in which --help names them. Each is a module of commands/.
COMMANDS = (
    "search",
    "plan",
    "train",
    "evaluate",
    "predict",
    "export",
    "confirm",
    "doctor",
    "check-script",
    "report",
    "list",
    "show",
    "compare",
    "stop",
    "board",
    "cache",
    "sample-data",
)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of every command. A default of None means "as the file says"."""
    parser = _Parser(
        prog=PROGRAM,
        description=(
            "Give it one folder of leaf photographs per disease and your GPU's memory: it finds the training settings "
            "with the best validation accuracy."
        ),
        epilog=(
            "COMMAND --help tells more. Without arguments of its own, search makes a small synthetic data set and runs "
            "on any machine."
        ),
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(parser=parser)  # of a command, its own takes this place
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    for name in COMMANDS:
        module = _module_of(name)
        own = commands.add_parser(name, help=module.HELP, description=module.DESCRIPTION)
        module.add_arguments(own)
        own.set_defaults(parser=own)
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the commands do, instead of printing all of the usage."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words = list(args or [])
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        told = with_closest_choice(" ".join(message.split()))
        if message.startswith("the following arguments are required"):  # perhaps one that is there, but misspelled
            told += self._misspelled(self._words)
        _tell_error(told, f"({command(*self.prog.split()[1:], '--help')} tells more)")
        self.exit(BAD_INPUT)

    def refuse(self, unknown: Sequence[str]) -> NoReturn:
        """Ends the process with what is said of words that no argument takes, and the flag that was meant."""
        self.error(f"unrecognized arguments: {' '.join(unknown)}{self._misspelled(unknown)}")

    def _misspelled(self, words: Sequence[str]) -> str:
        """Returns the end of a message: which flag was meant by the first of `words` that is none."""
        known = re.findall(r"--[a-z][a-z-]*", self.format_usage())
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        wrong = next((flag for flag in flags if not any(each.startswith(flag) for each in known)), None)
        hint = did_you_mean(wrong, known).rstrip() if wrong is not None else ""
        return f"; {wrong}: {hint}" if hint else ""


def with_closest_choice(message: str) -> str:
    """Returns what argparse says of a word that is none of its choices, and which of them was meant; else `message`."""
    found = re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", message)
    if found is None:
        return message
    choices = re.findall(r"[\w-]+", found[3])  # quoted or not, as the version of Python has it
    what = "no command is called" if found[1] == "COMMAND" else f"argument {found[1]}: there is no"
    return f"{what} {found[2]!r}; {did_you_mean(found[2], choices)}known: {', '.join(choices)}"


def first_steps() -> str:
    """Returns what the bare program says: what it is for, and the three commands that one needs first."""
    network = Path("results") / "runs" / "NAME" / "best"
    return f"""\
Give it one folder of leaf photographs per disease. It finds the training settings with the best validation accuracy.

Try it on a small synthetic data set, in about a minute:
  {command("search")}
Search on your photographs, one sub-folder per class:
  {command("search", "--data", "leaves")}
Ask the network that was found about a photograph:
  {command("predict", network, "leaf.jpg")}

{command("--help")}  lists all commands, COMMAND --help the flags of one.
"""


def _module_of(command: str) -> ModuleType:
    return importlib.import_module(f"tune_cropshield.commands.{command.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` (the process's own when None) and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file's name need not be writable in the terminal's encoding.
            stream.reconfigure(errors="backslashreplace")
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:
        args.parser.refuse(unknown)
    if args.command is None:
        print(first_steps(), end="")
        return 0
    args.argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with on_ending_signal(_interrupt):  # so that everything that was opened is closed
            return int(_module_of(args.command).run(args))
    except UserError as error:
        return _complain(str(error), BAD_INPUT)
    except RunFailure as error:
        return _complain(str(error), FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted", INTERRUPTED)
    except Exception as error:
        if is_disk_full(error):
            return _complain(f"no space left on the disk: {error}", BAD_INPUT)
        if (fault := fault_of_own_code(error)) is not None:
            return _complain(fault, BAD_INPUT)
        traceback.print_exc()
        return _complain("this is a fault of tune_cropshield: please report it with the lines above", FAILED)


def run() -> NoReturn:
    """Runs the process's own command and ends the process with its exit code.

    It ends at once: to take PyTorch, Ray and the like apart takes a second.
    """
    outlast_readers()
    code = main()
    if (error := failure_of_output()) is not None:
        code = _complain(
            f"the output could not be written: {error.strerror}", BAD_INPUT if is_disk_full(error) else FAILED
        )
    sys.stderr.flush()
    os._exit(code)


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _complain(message: str, code: int) -> int:
    for line in message.split("\n"):
        _tell_error(line)
    return code


def _tell_error(line: str, end: str = "") -> None:
    """Prints an error; see `say`."""
    from rich.console import Console

    from tune_cropshield.terminal import say

    say(Console(stderr=True, highlight=False), f"error: {line}", end=end)
