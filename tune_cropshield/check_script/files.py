"""Which files are meant by a path on the command line, and what is in them."""

from __future__ import annotations

import os
from pathlib import Path

from tune_cropshield.check_script.notebook import read_notebook
from tune_cropshield.check_script.source import Source, decoded, parse_source
from tune_cropshield.errors import UserError

LARGEST_MB = 5  # of a script: what is larger holds data, and would take minutes
OF_OTHERS = {"site-packages", "dist-packages", "node_modules", "__pycache__", "venv", "env", "build", "dist"}


def scripts_in(path: Path) -> list[Path]:
    """Returns the scripts and notebooks in a folder and the folders below it, by name; a file is returned as it is.

    Folders that hold other people's code are left out: hidden ones (.git, .venv, .ipynb_checkpoints), environments,
    installed packages and what was built. Raises UserError for a folder without scripts.
    """
    if not path.is_dir():
        return [path]
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = [name for name in folders if not _is_of_others(Path(folder, name))]
        scripts = [Path(folder, name) for name in names if name.endswith((".py", ".ipynb")) and name[0] != "."]
        found += [script for script in scripts if script.is_file()]
    if not found:
        raise UserError(f"{path}: no scripts (.py) and no notebooks (.ipynb) in this folder")
    return sorted(found)


def _is_of_others(folder: Path) -> bool:
    return folder.name.startswith(".") or folder.name in OF_OTHERS or (folder / "pyvenv.cfg").exists()


def read_source(path: Path) -> Source:
    """Returns the script or notebook at `path`.

    Raises UserError, with the line where there is one, for a file that is missing or no Python.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if path.suffix == ".ipynb":
        return read_notebook(content, str(path))
    if len(content) > LARGEST_MB * 1e6:
        raise UserError(f"{path}: too large to be read: {len(content) / 1e6:.0f} MB, where {LARGEST_MB} are the most")
    return parse_source(decoded(content, str(path)), str(path))
