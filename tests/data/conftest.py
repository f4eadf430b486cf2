"""Small image folders for the tests of the data room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeFolder = Callable[[Mapping[str, int]], Path]


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Returns a function {class: number of images} -> folder of distinct 24 x 20 PNGs named 0.png, 1.png, ... in each
    class.
    """

    def make(counts: Mapping[str, int]) -> Path:
        root = tmp_path / "photos"
        rng = np.random.default_rng(0)
        for name, count in counts.items():
            (root / name).mkdir(parents=True)
            for index in range(count):
                Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / name / f"{index}.png")
        return root

    return make
