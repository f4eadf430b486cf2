from __future__ import annotations

import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tune_cropshield.data.folder import scan_folder
from tune_cropshield.data.generated import DISEASES, draw_leaf, draw_leaves
from tune_cropshield.errors import DataError


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*.jpg"))
    }


def test_one_folder_per_class_with_pictures_of_the_asked_size(tmp_path: Path) -> None:
    root = draw_leaves(tmp_path / "leaves", classes=4, per_class=3, image_size=40)
    assert root == tmp_path / "leaves"
    folder = scan_folder(root, None)
    assert folder.classes == ("blight", "healthy", "leaf_spot", "rust")
    assert [file.path for file in folder.files[:3]] == [
        "blight/blight_0000.jpg",
        "blight/blight_0001.jpg",
        "blight/blight_0002.jpg",
    ]
    assert len({file.digest for file in folder.files}) == 12
    with Image.open(root / "rust" / "rust_0002.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (40, 40))
    assert [path.name for path in tmp_path.iterdir()] == ["leaves"]


def test_there_are_at_least_ten_classes_and_all_can_be_drawn_at_any_size() -> None:
    assert len(DISEASES) >= 10
    for disease, size in itertools.product(DISEASES, (16, 17, 96)):
        pixels = draw_leaf(disease, 0, size, 0)
        assert pixels.shape == (size, size, 3)
        assert pixels.dtype == np.uint8
        assert pixels.std() > 5


def test_the_same_seed_draws_the_same_files_however_many(tmp_path: Path) -> None:
    few = digests(draw_leaves(tmp_path / "few", classes=2, per_class=3, image_size=32, seed=5))
    many = digests(draw_leaves(tmp_path / "many", classes=3, per_class=6, image_size=32, seed=5))
    assert len(few) == 6
    assert few.items() <= many.items()


def test_another_seed_draws_other_files(tmp_path: Path) -> None:
    first = digests(draw_leaves(tmp_path / "first", classes=2, per_class=3, image_size=32, seed=0))
    second = digests(draw_leaves(tmp_path / "second", classes=2, per_class=3, image_size=32, seed=1))
    assert not set(first.values()) & set(second.values())


def test_diseases_leave_their_colour_on_the_leaf() -> None:
    """Averages over many leaves: rust is redder, mildew paler, yellow curl yellower than a healthy leaf."""
    mean = {
        disease: np.mean([draw_leaf(disease, index, 48, 0)[16:32, 16:32].mean((0, 1)) for index in range(40)], axis=0)
        for disease in ("healthy", "rust", "mildew", "yellow_curl")
    }
    red_to_green = {disease: colour[0] / colour[1] for disease, colour in mean.items()}
    assert red_to_green["rust"] > red_to_green["healthy"] + 0.1
    assert red_to_green["yellow_curl"] > red_to_green["healthy"] + 0.05
    assert mean["mildew"][2] > mean["healthy"][2] + 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, r"^`classes` must be between 2 and 10, but got classes=1$"),
        ({"classes": 11}, r"^`classes` must be between 2 and 10, but got classes=11$"),
        ({"per_class": 2}, r"^`per_class` must be between 3 and 100000, but got per_class=2$"),
        ({"image_size": 15}, r"^`image_size` must be between 16 and 4096, but got image_size=15$"),
        ({"seed": -1}, r"^`seed` must be at least 0, but got seed=-1$"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        draw_leaves(tmp_path / "leaves", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "leaves").mkdir()
    (tmp_path / "leaves" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("leaves", "file"):
        with pytest.raises(DataError, match=rf"{name}' exists already and is not an empty folder"):
            draw_leaves(tmp_path / name, classes=2, per_class=3, image_size=16)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "leaves", "mine.txt"]


def test_an_empty_folder_is_filled_and_missing_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert len(digests(draw_leaves(tmp_path / "empty", classes=2, per_class=3, image_size=16))) == 6
    assert len(digests(draw_leaves(tmp_path / "a" / "b", classes=2, per_class=3, image_size=16))) == 6


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_draw_leaves_no_half_written_folder_and_does_not_block_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, tune_cropshield.data.generated as g; g.draw_leaves(pathlib.Path(sys.argv[1]), 10, 2000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "leaves")], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 30
    while not any(tmp_path.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".leaves.tmp-")
    assert len(digests(draw_leaves(tmp_path / "leaves", classes=2, per_class=3, image_size=16))) == 6


def test_a_place_that_cannot_be_written_is_the_users_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="photographs cannot be made in"):
        draw_leaves(tmp_path / "file" / "leaves", classes=2, per_class=3, image_size=16)
