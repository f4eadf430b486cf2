"""A user's own code, named in a settings file, that is written in an unusual way or fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tune_cropshield.cli import main
from tune_cropshield.config.registry import checked_name, resolve
from tune_cropshield.config.space import SearchSettings
from tune_cropshield.data.generated import draw_leaves
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

def exits(num_classes):
    raise SystemExit("no licence\\nfor this machine")
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


def test_an_end_of_the_program_and_several_lines_are_told_as_one_fault(parts: Path) -> None:
    parts.write_text(FAILING, encoding="utf-8")
    with pytest.raises(
        ConfigError, match=r"exits' failed with SystemExit: no licence for this machine .*line 6"
    ) as told:
        build_model(f"{parts}:exits", 2)
    assert len(str(told.value).splitlines()) == 1


LATE = """
import torch
from torch import nn
from tune_cropshield.training.losses import SampleLoss

class Few(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Linear(3, num_classes)
    def forward(self, images):
        assert len(images) < 3, "two at most"
        return self.head(images.mean((2, 3)))

class OfFive(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        return (logits_BK * torch.ones(5)).sum(1)

def score(labels, probabilities):
    return None
"""


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('[trial]\nmodel = "{parts}:Few"', "{parts}, line 11, failed with AssertionError: two at most"),
        (
            '[trial]\nmodel = "tiny_cnn"\nloss = "{parts}:OfFive"',
            "loss '{parts}:OfFive' failed with RuntimeError: The size of tensor a (2)",
        ),
        (
            '[trial]\nmodel = "tiny_cnn"\n[search]\nmetric = "{parts}:score"',
            "metric '{parts}:score' must return a finite number, but returned None",
        ),
    ],
)
def test_own_code_that_fails_late_is_told_by_a_dry_run_without_a_traceback(
    home: Path, parts: Path, capsys: pytest.CaptureFixture[str], settings: str, told: str
) -> None:
    parts.write_text(LATE, encoding="utf-8")
    root = draw_leaves(home / "leaves", classes=2, per_class=8, image_size=24)
    space = home / "space.toml"
    text = f"{settings}\n[space]\nlr = {{log = [1e-3, 1e-2]}}\n"
    space.write_text(text.replace("{parts}", str(parts)), encoding="utf-8")
    flags = ["--dry-run", "--image-size", "32", "--epochs", "1", "--device", "cpu", "--from-scratch"]

    assert main(["search", "--space", str(space), "--data", str(root), *flags]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {told.replace('{parts}', str(parts))}")


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
