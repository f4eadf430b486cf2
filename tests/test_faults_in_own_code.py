"""A user's own code, named in a settings file, that is written in an unusual way or fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tune_cropshield.config.registry import checked_name, resolve
from tune_cropshield.config.space import SearchSettings
from tune_cropshield.data.mixing import Targets
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.pruning import build_pruning
from tune_cropshield.search.samplers import build_sampler
from tune_cropshield.training.losses import SampleLoss
from tune_cropshield.training.models import build_model

UNUSUAL = """
annotated: type = int
one, two = int, int
try:
    import not_there
    guarded = not_there.Net
except ImportError:
    def guarded(num_classes):
        inner = 1
"""
FAILING = """
def fails(**given):
    raise KeyError("mine")
"""


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return tmp_path / "parts.py"


@pytest.mark.parametrize("name", ["annotated", "one", "two", "guarded"])
def test_whatever_a_file_defines_is_found(parts: Path, name: str) -> None:
    parts.write_text(UNUSUAL, encoding="utf-8")
    assert checked_name("model", f"{parts}:{name}") == f"{parts}:{name}"


def test_what_a_function_of_the_file_defines_is_not(parts: Path) -> None:
    parts.write_text(UNUSUAL, encoding="utf-8")
    with pytest.raises(ConfigError, match="defines no inner"):
        checked_name("model", f"{parts}:inner")


def test_a_file_that_has_changed_is_loaded_again(parts: Path) -> None:
    parts.write_text("answer = 1", encoding="utf-8")
    assert resolve("model", f"{parts}:answer") == 1
    parts.write_text("answer = 2", encoding="utf-8")
    assert resolve("model", f"{parts}:answer") == 2


def test_what_raises_when_it_is_made_is_told_with_its_line(parts: Path) -> None:
    parts.write_text(FAILING, encoding="utf-8")
    name, told = f"{parts}:fails", "failed with KeyError: 'mine' .*parts.py, line 3"
    with pytest.raises(ConfigError, match=f"model .*{told}"):
        build_model(name, 2)
    with pytest.raises(ConfigError, match=f"sampler .*{told}"):
        build_sampler(name, seed=0, number=0, num_trials=4)
    with pytest.raises(ConfigError, match=f"pruning .*{told}"):
        build_pruning(SearchSettings(pruning=name))


def test_a_package_that_raises_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raising_package").mkdir()
    (tmp_path / "raising_package" / "__init__.py").write_text("1 / 0", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="cannot be loaded: ZeroDivisionError"):
        checked_name("model", "raising_package.nets:Net")


def test_a_loss_that_is_no_loss_for_each_sample_is_refused() -> None:
    class Mean(SampleLoss):
        def per_sample(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
            return torch.nn.functional.cross_entropy(logits_BK, labels_B)

    with pytest.raises(ValueError, match=r"Mean.per_sample must return a loss for each sample, but gave \(\)"):
        Mean().sum(torch.zeros(4, 2), Targets(torch.zeros(4, dtype=torch.int64)))
