"""argv -> one call.

Heavy imports happen inside the commands; errors become exit codes: 2 the input is at fault, 1 it failed, 130
interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from tune_cropshield import __version__
from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.files import is_disk_full, printable
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
    "sample-data",
)


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of every command. A default of None means "as the file says"."""
    parser = _Parser(
        prog="tune-cropshield",
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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    for name in COMMANDS:
        command = _module_of(name)
        command.add_arguments(commands.add_parser(name, help=command.HELP, description=command.DESCRIPTION))
    return parser


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as the commands do, instead of printing all of the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"error: {' '.join(message.split())} ({self.prog} --help tells more)\n")


def _module_of(command: str) -> ModuleType:
    return importlib.import_module(f"tune_cropshield.commands.{command.replace('-', '_')}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command in `argv` (the process's own when None) and returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file's name need not be writable in the terminal's encoding.
            stream.reconfigure(errors="backslashreplace")
    args = build_parser().parse_args(argv)
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
            f"what was said could not be written: {error.strerror}", BAD_INPUT if is_disk_full(error) else FAILED
        )
    sys.stderr.flush()
    os._exit(code)


def _interrupt() -> NoReturn:
    raise KeyboardInterrupt


def _complain(message: str, code: int) -> int:
    for line in message.split("\n"):
        print(f"error: {printable(line)}", file=sys.stderr)
    return code
