"""Runs first_search.ipynb from top to bottom and keeps what its cells print: python docs/run_notebook.py."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

NOTEBOOK = Path(__file__).with_name("first_search.ipynb")


def run(folder: Path) -> NotebookNode:
    """Returns the notebook with the outputs of a run in `folder`. Raises CellExecutionError where a cell fails."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    place = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=200, coalesce_streams=True, resources=place).execute()
    return notebook


def for_reading(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Returns the notebook as people read it: without times, warnings, and the places of this machine."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    text = nbformat.writes(notebook)
    shorter = {f"{folder}/": "", str(folder): ".", sys.executable: "python", str(Path.home()): "~"}
    for path, short in shorter.items():
        text = text.replace(json.dumps(path)[1:-1], short)
    return nbformat.reads(text, as_version=4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        nbformat.write(for_reading(run(folder), folder), NOTEBOOK)
