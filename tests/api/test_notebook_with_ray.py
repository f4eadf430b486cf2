"""docs/first_search.ipynb runs from top to bottom in a real kernel, and holds the lines of docs/python_api.md."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def run_notebook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_notebook", DOCS / "run_notebook.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell: Any) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream" and output.name == "stdout")


def test_the_lines_of_the_python_page_are_in_the_notebook_which_the_last_test_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)\n```", (DOCS / "python_api.md").read_text(encoding="utf-8"), re.DOTALL)
    cells = [cell.source for cell in code_cells(nbformat.read(DOCS / "first_search.ipynb", as_version=4))]
    assert len(blocks) == 2
    assert [cell for cell in cells if cell in blocks] == blocks


def test_the_kept_outputs_are_those_of_a_run_and_name_no_folder_of_a_machine() -> None:
    cells = code_cells(nbformat.read(DOCS / "first_search.ipynb", as_version=4))
    assert all(cell.execution_count and cell.outputs for cell in cells)
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    text = (DOCS / "first_search.ipynb").read_text(encoding="utf-8")
    assert re.findall(r"(?<![\w.~])/(?:root|home|tmp|work|Users|usr|opt)/\S*", text) == []


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_the_notebook_runs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    cells = code_cells(run_notebook().run(home))

    search, tables, resumed, used, picture, plan, mistakes = cells
    assert "no --data given: searching on a synthetic data set in " in printed(search)  # nothing of it is cleared
    assert "3 trials: " in printed(search) and "BestTrial(number=" in printed(search)
    assert "PRUNED" in printed(tables) or "COMPLETE" in printed(tables)
    assert printed(resumed).startswith("3 3\n") and printed(resumed).endswith("4 None False\n")
    assert "confusion_test.png\n" in printed(used) and (home / "results/runs/first/report.html").is_file()
    assert picture.outputs[0].data["image/png"]
    assert "micro_batch" in printed(plan)
    assert printed(mistakes).splitlines() == [
        "--trials: must be at least 1, but got 0",
        "--image-size: must be at least 16, but got 3",
    ]
