"""Who may load what, in fresh interpreters. An import of torch takes seconds, so one process asks as much as it can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = [
    "tune_cropshield.training.loop",
    "tune_cropshield.training.trainer",
    "tune_cropshield.data.dataset",
    "tune_cropshield.memory.choose.pairs",
]
DOCTOR = ["tune_cropshield.doctor.report", "tune_cropshield.check_script"]


def loaded(modules: list[str], watched: list[str]) -> list[str]:
    """Returns which of `watched` a fresh interpreter has loaded after importing `modules`."""
    code = (
        f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint(*[m for m in "
        f"{watched!r} if m in sys.modules])"
    )
    return run_python(code).split()


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_line_loads_nothing_heavy() -> None:
    assert loaded(["tune_cropshield.cli"], ["torch", "torchvision", "ray", "optuna", "pydantic", "numpy", "rich"]) == []


def test_a_faulty_space_is_told_about_before_torch_ray_or_optuna_are_loaded() -> None:
    heavy = ["torch", "torchvision", "ray", "optuna", "tensorboard"]
    code = (
        "import sys\nfrom tune_cropshield.cli import main\n"
        "print(main(['search', '--space', 'efficientnet_b0', '--trials', '0']), "
        f"[m for m in {heavy!r} if m in sys.modules])"
    )

    assert run_python(code) == "2 []\n"


def test_training_loads_neither_ray_nor_optuna() -> None:
    assert loaded(CORE, ["ray", "optuna"]) == []


@pytest.mark.slow
def test_the_doctor_loads_neither_ray_nor_optuna_nor_the_rooms_beside_and_above_it() -> None:
    rooms = ["tune_cropshield.search.folder", "tune_cropshield.search.views", "tune_cropshield.outcome"]

    assert loaded(DOCTOR, ["ray", "optuna", *rooms, "tune_cropshield.api", "tune_cropshield.commands"]) == []


@pytest.mark.slow
def test_ray_is_loaded_only_when_a_search_starts_it() -> None:
    assert loaded(["tune_cropshield.search.prepare", "tune_cropshield.search.run"], ["ray"]) == []


def test_the_check_of_what_is_loaded_can_fail() -> None:
    assert loaded(["tune_cropshield.search.journal"], ["ray", "optuna"]) == ["optuna"]
