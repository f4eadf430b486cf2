"""The files of a user's own code: which belong together, what tells their versions apart, and copies of them.

A file counts together with what it imports from its own folder. Beside a trained network lies a copy of all that its
settings name (`code/model/net.py`), so that the network can be used where the files are gone or have changed.
"""

from __future__ import annotations

import ast
import hashlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

CODE = "code"  # in a run's folder
IN_A_FILE = re.compile(r"(.+\.py):[^\W\d]\w*")  # file.py:name
OF_INSTALLED = ("site-packages", "dist-packages")


def file_of(name: object) -> Path | None:
    """Returns the file of a name like file.py:Net; None for every other name."""
    found = IN_A_FILE.fullmatch(name) if isinstance(name, str) else None
    return Path(found.group(1)) if found else None


def files_of(path: Path) -> list[Path]:
    """Returns `path` and, in the order of their names, the files of its folder that it imports, directly or not.

    Names of Python's own library stand for that. A file of a package counts with what it imports from the folder that
    holds the package; what is installed counts with nothing but its own package. A file that cannot be read imports
    nothing.
    """
    found, waiting = {path}, [path]
    while waiting:
        file = waiting.pop()
        for imported in _imported(file, root_of(path)):
            if imported not in found:
                found.add(imported)
                waiting.append(imported)
    return [path, *sorted(found - {path})]


def root_of(path: Path) -> Path:
    """Returns the folder that modules of `path`'s folder are imported from: it is above the packages."""
    root = path.parent
    while (root / "__init__.py").is_file() and root.parent != root:
        root = root.parent
    return root


def is_installed(file: str | None) -> bool:
    """Tells whether a module's file lies among the installed packages; False where it has none."""
    return file is not None and not set(Path(file).parts).isdisjoint(OF_INSTALLED)


def digest_of(path: Path) -> str | None:
    """Returns the SHA-256 (hex) of `path` and of what it imports from its folder; None where `path` cannot be read.

    Of a file that imports nothing there, it is that of its content.
    """
    alone, *others = files_of(path)
    digest = file_digest(alone)
    if digest is None or not others:
        return digest
    named = [f"{file.relative_to(root_of(path)).as_posix()} {file_digest(file)}" for file in others]
    return hashlib.sha256("\n".join([digest, *named]).encode()).hexdigest()


def file_digest(path: Path) -> str | None:
    """Returns the SHA-256 (hex) of a file; None where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def keep_code(settings: Mapping[str, Any], run_dir: Path) -> None:
    """Copies the files that `settings` (a trial's, by name) name into `run_dir`; what can be read no more stays out."""
    for setting, value in settings.items():
        path = file_of(value)
        if path is None or not path.is_file():
            continue
        for file in files_of(path):
            copy = run_dir / CODE / setting / file.relative_to(root_of(path))
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def kept(setting: str, name: str, run_dir: Path) -> str:
    """Returns `name` with the copy of its file that lies in `run_dir`; as it is where there is none."""
    path = file_of(name)
    if path is None:
        return name
    for length in range(1, len(path.parts)):  # it may lie in a package
        copy = run_dir / CODE / setting / Path(*path.parts[-length:])
        if copy.is_file():
            return f"{copy.absolute()}:{name.rpartition(':')[2]}"
    return name


def with_kept(settings: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """Returns `settings` with the copies in `run_dir` in place of the files that are gone."""
    return {
        setting: kept(setting, value, run_dir) if (path := file_of(value)) and not path.is_file() else value
        for setting, value in settings.items()
    }


def _imported(file: Path, root: Path) -> Iterator[Path]:
    """Yields the files below `root` that `file` imports."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _below(root, root, alias.name.split("."), file)
        elif isinstance(node, ast.ImportFrom):
            base = file.parents[node.level - 1] if 0 < node.level <= len(file.parents) else root
            for alias in node.names:
                yield from _below(base, root, [*(node.module or "").split("."), alias.name], file)


def _below(base: Path, root: Path, parts: Sequence[str], importing: Path) -> Iterator[Path]:
    """Yields the files that importing base/part/part/... executes."""
    place = base
    for part in filter(None, parts):
        if place == root and part in sys.stdlib_module_names:
            return
        if root.name in OF_INSTALLED and place == root and part != importing.relative_to(root).parts[0]:
            return  # another installed package
        if (module := place / f"{part}.py").is_file():
            yield module
            return
        place = place / part
        if (module := place / "__init__.py").is_file():
            yield module
        elif not place.is_dir():
            return
