"""A user's own code together with what it imports from its folder: told apart, loaded, kept beside what it trained."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from tune_cropshield.config.own_files import digest_of, files_of
from tune_cropshield.config.registry import is_same_source, resolve, source_digest
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.errors import UserError
from tune_cropshield.outcome.predict import predict
from tune_cropshield.training.loop import run_trial
from tune_cropshield.training.models import build_model

NET = """
import json
import torch
from torch import nn
from blocks import block
import parts.head as head_of_mine

def build(num_classes):
    from late import SCALE
    return nn.Sequential(block(8), nn.AdaptiveAvgPool2d(SCALE), nn.Flatten(), head_of_mine.head(8, num_classes))
"""
BLOCKS = """
from torch import nn
def block(width):
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.ReLU())
"""
HEAD = """
from .sizes import BIAS
from torch import nn
def head(width, num_classes):
    return nn.Linear(width, num_classes, bias=BIAS)
"""


@pytest.fixture
def net(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    (folder / "parts").mkdir(parents=True)
    written = {
        "net.py": NET, "blocks.py": BLOCKS, "late.py": "SCALE = 1\n", "unused.py": "1 / 0\n", "json.py": "1 / 0\n",
        "parts/__init__.py": "", "parts/head.py": HEAD, "parts/sizes.py": "BIAS = True\n",
    }  # fmt: skip
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / "net.py"


def test_a_file_counts_with_what_it_imports_from_its_folder(net: Path) -> None:
    names = [file.relative_to(net.parent).as_posix() for file in files_of(net)]
    assert names == ["net.py", "blocks.py", "late.py", "parts/__init__.py", "parts/head.py", "parts/sizes.py"]


@pytest.mark.parametrize("changed", ["net.py", "blocks.py", "late.py", "parts/sizes.py"])
def test_what_is_imported_tells_versions_apart(net: Path, changed: str) -> None:
    before = source_digest(f"{net}:build")
    with open(net.parent / changed, "a", encoding="utf-8") as file:
        file.write("\n# changed\n")
    assert source_digest(f"{net}:build") != before


def test_what_is_not_imported_does_not(net: Path) -> None:
    before = source_digest(f"{net}:build")
    (net.parent / "unused.py").write_text("2 / 0\n", encoding="utf-8")
    assert source_digest(f"{net}:build") == before


def test_a_file_alone_has_the_digest_of_its_content(net: Path) -> None:
    late = net.parent / "late.py"
    assert digest_of(late) == "10b2fca2fc3a01ea94a4990402a2a7fe5c57b4cabf070633af3f232a24845434"  # sha256sum
    alone = hashlib.sha256(NET.encode()).hexdigest()  # as earlier versions counted it
    assert is_same_source(f"{net}:build", digest_of(net)) and is_same_source(f"{net}:build", alone)
    assert not is_same_source(f"{net}:build", "0" * 64)


def test_the_network_is_built_from_what_lies_beside_its_file_wherever_one_stands(net: Path) -> None:
    model = build_model(f"{net}:build", 3)
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 3)


def test_what_it_imports_is_loaded_again_when_it_has_changed(net: Path) -> None:
    assert resolve("model", f"{net}:build")(num_classes=3)[3].bias is not None
    (net.parent / "parts" / "sizes.py").write_text("BIAS = not True  # none\n", encoding="utf-8")
    assert resolve("model", f"{net}:build")(num_classes=3)[3].bias is None


def test_two_folders_with_files_of_the_same_names_do_not_mix(net: Path, tmp_path: Path) -> None:
    shutil.copytree(net.parent, tmp_path / "other")
    (tmp_path / "other" / "blocks.py").write_text(BLOCKS.replace("ReLU", "Tanh"), encoding="utf-8")
    kinds = []
    for folder in (net.parent, tmp_path / "other"):
        kinds.append(type(build_model(f"{folder / 'net.py'}:build", 3)[0][1]).__name__)
    assert kinds == ["ReLU", "Tanh"]


@pytest.fixture
def trained(net: Path, drawn_leaves: Path, shared_cache: Path, tmp_path: Path) -> Path:
    data = DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {16}, shared_cache), torch.device("cpu"))
    trial = TrialConfig(model=f"{net}:build", image_size=16, epochs=1, threads=1)
    run_trial(
        RunConfig(data=DataConfig(dir=str(drawn_leaves)), trial=trial), data, tmp_path / "run", lambda report: None
    )
    return tmp_path / "run"


def test_the_files_are_kept_beside_what_they_trained(trained: Path) -> None:
    kept = sorted(path.relative_to(trained / "code").as_posix() for path in trained.glob("code/**/*.py"))
    expected = ["net.py", "blocks.py", "late.py", "parts/__init__.py", "parts/head.py", "parts/sizes.py"]
    assert kept == sorted(f"model/{name}" for name in expected)


def test_a_network_is_used_where_its_files_are_gone(trained: Path, net: Path, drawn_leaves: Path) -> None:
    photographs = sorted(drawn_leaves.glob("*/*"))[:2]
    before = [one.probabilities for one in predict(trained, photographs, torch.device("cpu"))]
    shutil.rmtree(net.parent)
    moved = trained.rename(trained.parent / "elsewhere")
    assert load_config(moved / "config.toml").trial.model == f"{moved}/code/model/net.py:build"
    assert [one.probabilities for one in predict(moved, photographs, torch.device("cpu"))] == before


def test_a_network_is_used_as_it_was_trained_where_its_file_has_changed(
    trained: Path, net: Path, drawn_leaves: Path
) -> None:
    photographs = sorted(drawn_leaves.glob("*/*"))[:2]
    before = [one.probabilities for one in predict(trained, photographs, torch.device("cpu"))]
    (net.parent / "blocks.py").write_text(BLOCKS.replace("ReLU", "Tanh"), encoding="utf-8")
    assert [one.probabilities for one in predict(trained, photographs, torch.device("cpu"))] == before


def test_without_a_copy_the_missing_file_is_told(trained: Path, net: Path) -> None:
    shutil.rmtree(net.parent)
    shutil.rmtree(trained / "code")
    with pytest.raises(UserError, match=r"net\.py cannot be read: No such file or directory"):
        load_config(trained / "config.toml")


def test_a_file_that_ends_the_program_is_told(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import sys\nbuild = None\nsys.exit('usage: net.py')\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot be loaded: SystemExit: usage: net\.py"):
        build_model(f"{tmp_path / 'net.py'}:build", 2)
