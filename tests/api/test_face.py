"""`import tune_cropshield`: light, complete, and its names stay what they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import tune_cropshield as tc

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_import_loads_nothing_heavy_and_nothing_of_ours() -> None:
    watched = ["torch", "ray", "optuna", "pydantic", "numpy", "rich", "tune_cropshield.api", "tune_cropshield.config"]

    assert run_python(f"import sys, tune_cropshield; print([m for m in {watched} if m in sys.modules])") == "[]\n"


def test_search_is_the_function_also_after_the_folder_of_that_name_was_imported() -> None:
    code = """
import tune_cropshield as tc
print(tc.search.__module__)
import tune_cropshield.search.folder
print(tc.search.__module__)
from tune_cropshield import search
from tune_cropshield.config.space import SETTINGS
print(search is tc.search, SETTINGS)
"""
    assert run_python(code).split() == ["tune_cropshield.api.search"] * 2 + ["True", "search.toml"]


def test_every_name_that_is_promised_is_there_and_listed() -> None:
    functions = {"search", "train", "plan", "evaluate", "predict", "export", "confirm", "report", "open_search"}

    assert functions | {"UserError", "RunFailure"} <= set(tc.__all__)
    assert set(tc.__all__) <= set(dir(tc))
    for name in tc.__all__:
        value = getattr(tc, name)
        assert name == "__version__" or value.__name__ == name
    assert all(callable(getattr(tc, name)) and getattr(tc, name).__doc__ for name in functions)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'tune_cropshield' has no attribute 'serach'"):
        tc.serach  # type: ignore[attr-defined]  # noqa: B018


def test_the_package_says_that_it_is_typed() -> None:
    assert (ROOT / "tune_cropshield" / "py.typed").read_text() == ""
