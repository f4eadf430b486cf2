"""How this program is called here: its own name or path, its words, quoted for the shell of this system.

Every command that is printed, or written into a file, is spelled by this module, so that it can be pasted.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from tune_cropshield.files import BREAKS_A_LINE

PROGRAM = "tune-cropshield"
# A word with nothing else means itself in PowerShell: it reads a comma, @, { or % as something of its own.
# It cuts a word like -x.y in two.
PLAIN_IN_POWERSHELL = re.compile(r"--?[A-Za-z-]+|[\w.\\/][\w.:\\/=+-]*")
ENDS_A_STRING = re.compile("(['‘’‚‛])")  # PowerShell takes each of them for the quote that it began with


def command(*words: str | Path, anywhere: bool = False) -> str:
    """Returns the line that calls this program with `words`.

    Args:
        words: what stands behind the program's name. A path is never taken for a flag, whatever it begins with.
        anywhere: the line works in every folder, as one in a file must: paths are whole. Else it works where this
            process was started.
    """
    given = [_path(word, anywhere) if isinstance(word, Path) else word for word in words]
    return spelled([*_program(anywhere), *given])


def install_command(*packages: str) -> str:
    """Returns the line that installs packages into this program's environment."""
    if importlib.util.find_spec("pip") is not None:
        return spelled([_callable(sys.executable, False), "-m", "pip", "install", *packages])
    beside = Path(sys.prefix).parent / ".uv" / "bin" / "uv"  # where the README's first command puts it
    uv = os.environ.get("UV") or shutil.which("uv") or (str(beside) if beside.exists() else "uv")
    return spelled([_callable(uv, False), "pip", "install", "--python", sys.executable, *packages])


def spelled(words: Sequence[str], *, windows: bool = os.name == "nt") -> str:
    """Returns words as a line for bash, zsh and their like, or with `windows` for PowerShell.

    There, cmd.exe takes it too, unless the program's path has to be quoted.
    """
    if not windows:
        return " ".join(map(_quoted, words))
    program, *rest = map(_quoted_for_powershell, words)
    return " ".join([program if program == words[0] else f"& {program}", *rest])


def as_path(text: str) -> str:
    """Returns a path as a word that is not taken for a flag: `./-leaves` for `-leaves`."""
    return os.path.join(os.curdir, text) if text.startswith("-") else text


def _quoted(word: str) -> str:
    """Returns a word for a POSIX shell. What would break the line, and bytes that are no UTF-8, are escaped."""
    if any(unicodedata.category(letter) in BREAKS_A_LINE for letter in word):
        return f"$'{''.join(map(_escaped, word))}'"
    quoted = shlex.quote(word)
    return f"'{quoted}'" if quoted.startswith("=") else quoted  # zsh: =x is the path of the program x


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) in BREAKS_A_LINE:
        return "".join(f"\\x{byte:02x}" for byte in os.fsencode(letter))
    return f"\\{letter}" if letter in "\\'" else letter


def _quoted_for_powershell(word: str) -> str:
    if PLAIN_IN_POWERSHELL.fullmatch(word):
        return word
    if re.search(r'["“”„$`]', word) is None:
        return f'"{word}"'  # cmd.exe knows these quotes only
    return "'" + ENDS_A_STRING.sub(r"\1\1", word) + "'"


def _program(anywhere: bool) -> list[str]:
    """Returns the words that call this program: as it was called, or with this Python where it is used as a library."""
    started = (sys.argv or [""])[0]
    if Path(started).name.removesuffix(".exe") == PROGRAM:
        return [_callable(os.path.abspath(started), anywhere)]
    return [_callable(sys.executable or "python", anywhere), "-m", "tune_cropshield"]


def _callable(program: str, anywhere: bool) -> str:
    """Returns a program as a shell finds it: its name where it is on every shell's PATH, else its path.

    What lies in an environment of its own is on the PATH of shells in which that is activated only, or, as under
    `uv run`, of this process alone: it gets its path, from here where this is the folder that holds the environment.
    """
    path, name = Path(program), Path(program).name.removesuffix(".exe")
    if not _in_environment(path) and _same(shutil.which(name), program):
        return name
    if not anywhere and Path(sys.prefix).parent == Path.cwd() and path.is_relative_to(Path.cwd()):
        return as_path(str(path.relative_to(Path.cwd())))
    return program


def _in_environment(program: Path) -> bool:
    own = sys.prefix != sys.base_prefix or (Path(sys.prefix) / "conda-meta").is_dir()
    return own and program.is_relative_to(sys.prefix)


def _same(found: str | None, program: str) -> bool:
    def plain(path: str) -> str:
        return os.path.normcase(path).removesuffix(".exe")

    return found is not None and plain(os.path.abspath(found)) == plain(program)


def _path(path: Path, anywhere: bool) -> str:
    return str(path.absolute()) if anywhere else as_path(str(path))
