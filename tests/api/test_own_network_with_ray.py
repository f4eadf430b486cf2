"""A search for a network of one's own in two files; afterwards these are gone, and the search lies elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

import tune_cropshield as tc

NET = """
from torch import nn
from blocks import block

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = nn.Bilinear(8, 3, num_classes)
        self.features = block(8)

    def forward(self, images):
        return self.head(self.features(images).mean((2, 3)), images.mean((2, 3)))
"""
BLOCKS = """
from torch import nn
def block(width):
    return nn.Sequential(nn.Conv2d(3, width, 3, stride=2), nn.BatchNorm2d(width), nn.ReLU())
"""
SPACE = """
[trial]
model = "net.py:Net"
head = "head"
image_size = 32
dropout = 0.1
effective_batch = 32
[space]
lr = {log = [1e-3, 1e-2]}
[search]
trials = 2
epochs = 2
grace_epochs = 1
device = "cpu"
baseline = false
"""


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_network_of_ones_own_is_searched_continued_and_used_where_its_files_are_gone(
    drawn_leaves: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    for name, text in (("net.py", NET), ("blocks.py", BLOCKS), ("space.toml", SPACE)):
        (home / name).write_text(text, encoding="utf-8")
    found = tc.search(data=drawn_leaves, space="space.toml", out="out", progress=False)
    assert [row["epochs"] for row in found.trials] == [2, 2]
    with open(home / "blocks.py", "a", encoding="utf-8") as file:
        file.write("# another version\n")
    with pytest.raises(tc.UserError, match=r"net\.py:Net has changed"):
        tc.search(data=drawn_leaves, space="space.toml", out="out", trials=3, resume=True, progress=False)
    for name in ("net.py", "blocks.py", "space.toml"):
        (home / name).unlink()
    moved = (home / "out").rename(home / "elsewhere")
    copies = sorted(path.relative_to(moved).as_posix() for path in moved.glob("best/code/**/*.py"))
    assert copies == ["best/code/model/blocks.py", "best/code/model/net.py"]
    photograph = sorted(drawn_leaves.glob("*/*"))[0]
    (prediction,) = tc.predict(moved / "best", [photograph])
    assert sum(prediction.probabilities.values()) == pytest.approx(1.0)
    assert 0.0 <= tc.evaluate(moved / "best", split="test").accuracy <= 1.0
