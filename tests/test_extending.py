"""docs/extending.md is run as it stands: its file of own parts, its settings."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tune_cropshield.search.journal import read_study
from tune_cropshield.training.run_folder import read_metrics

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_whose_every_part_is_ones_own(tmp_path: Path, drawn_leaves: Path) -> None:
    (tmp_path / "my_parts.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "own.toml").write_text(block("toml"), encoding="utf-8")
    command = [sys.executable, "-m", "tune_cropshield", "search", "--space", "own.toml", "--data", str(drawn_leaves)]
    done = subprocess.run(
        [*command, "--image-size", "32", "--device", "cpu", "--trials-per-gpu", "1", "--out", "found"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    trials = read_study(tmp_path / "found").trials
    assert [trial.user_attrs["outcome"] for trial in trials] == ["finished", "finished"]
    assert all(len(read_metrics(tmp_path / "found" / f"t{number:03d}")) == 2 for number in range(2))
    config = (tmp_path / "found" / "best" / "config.toml").read_text(encoding="utf-8")
    assert f'loss = "{tmp_path / "my_parts.py"}:Poly1"' in config
    assert f'optimizer = "{tmp_path / "my_parts.py"}:nadam"' in config
