"""Copies of one photograph are found whatever was done to them, and different photographs are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.dataset import open_data
from tune_cropshield.data.decode import decode_rgb
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.data.near_copies import groups_of_near_copies, thumbnail, unmarked
from tune_cropshield.data.remarks import remarks


def compressed(photograph: Image.Image, quality: int) -> Image.Image:
    content = io.BytesIO()
    photograph.save(content, "JPEG", quality=quality)
    return Image.open(content).convert("RGB")


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "turned": lambda photograph: photograph.transpose(Image.Transpose.ROTATE_90),
    "upside down": lambda photograph: photograph.transpose(Image.Transpose.ROTATE_180),
    "mirrored": ImageOps.mirror,
    "flipped": ImageOps.flip,
    "transposed": lambda photograph: photograph.transpose(Image.Transpose.TRANSPOSE),
    "compressed": lambda photograph: compressed(photograph, 80),
    "halved": lambda photograph: photograph.resize((photograph.width // 2, photograph.height // 2)),
    "enlarged": lambda photograph: photograph.resize((photograph.width * 2, photograph.height * 2)),
    "brighter": lambda photograph: photograph.point(lambda level: min(255, round(1.1 * level))),
}


@pytest.fixture(scope="module")
def leaves(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    """60 different drawn leaves, cut to 96 x 72 px."""
    root = draw_leaves(tmp_path_factory.mktemp("near") / "leaves", classes=4, per_class=15, image_size=96)
    return [decode_rgb(path).crop((0, 12, 96, 84)) for path in photographs_below(root)[0]]


def names(count: int) -> list[str]:
    return [f"a/{number}.jpg" for number in range(count)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_each_photograph_is_found_and_nothing_else(leaves: list[Image.Image], change: str) -> None:
    both = np.stack([thumbnail(photograph) for photograph in [*leaves, *map(CHANGES[change], leaves)]])
    assert groups_of_near_copies(both, names(120)) == [[number, number + 60] for number in range(60)]


def test_copies_of_a_few_can_be_asked_for(leaves: list[Image.Image]) -> None:
    both = np.stack([thumbnail(photograph) for photograph in [*leaves, *map(ImageOps.mirror, leaves)]])
    assert groups_of_near_copies(both, names(120), np.array([3, 64])) == [[3, 63], [4, 64]]


def test_different_photographs_are_no_copies(leaves: list[Image.Image]) -> None:
    assert groups_of_near_copies(np.stack([thumbnail(leaf) for leaf in leaves]), names(60)) == []


def test_pictures_of_one_colour_are_not_compared() -> None:
    plain = np.stack([thumbnail(Image.new("RGB", (32, 32), colour)) for colour in ("red", "green", "blue", "red")])
    assert groups_of_near_copies(plain, names(4)) == []


def test_real_leaves_hold_no_copies(real_leaves: Path) -> None:
    paths = photographs_below(real_leaves)[0]
    thumbnails = np.stack([thumbnail(decode_rgb(path)) for path in paths])
    assert groups_of_near_copies(thumbnails, names(len(paths))) == []


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("a/leaf_90deg.JPG", "a/leaf"),
        ("a/leaf_flipLR.jpg", "a/leaf"),
        ("a/leaf_flipTB.jpg", "a/leaf"),
        ("a/leaf_new30degFlipLR.jpg", "a/leaf"),
        ("a/leaf-rotated_2.jpg", "a/leaf"),
        ("a/leaf_mirrored.png", "a/leaf"),
        ("a/leaf_180deg_hflip.png", "a/leaf"),
        ("a/leaf_jpg.rf.0123456789abcdef.jpg", "a/leaf"),
        ("a/leaf.jpg", "a/leaf"),
        ("a/black_rot_12.jpg", "a/black_rot_12"),
        ("a/leaf (2).jpg", "a/leaf (2)"),
        ("a/IMG_90.jpg", "a/IMG_90"),
        ("a/flip.jpg", "a/flip"),
        ("a/degree.jpg", "a/degree"),
    ],
)
def test_marks_of_augmentation_programs_are_taken_off_a_name(name: str, plain: str) -> None:
    assert unmarked(name) == plain


def test_copies_are_found_by_their_names_where_they_look_different(leaves: list[Image.Image]) -> None:
    thumbnails = np.stack([thumbnail(leaf) for leaf in leaves[:4]])
    given = ["a/1.jpg", "a/1_new30degFlipLR.jpg", "b/1.jpg", "a/2.jpg"]
    assert groups_of_near_copies(thumbnails, given) == [[0, 1]]


def test_copies_on_two_sides_of_the_split_are_counted_before_training(tmp_path: Path, shared_cache: Path) -> None:
    root = draw_leaves(tmp_path / "leaves", classes=3, per_class=10, image_size=48)
    for path in photographs_below(root)[0]:
        photograph = decode_rgb(path)
        for mark, changed in (("90deg", photograph.rotate(90)), ("flipLR", ImageOps.mirror(photograph))):
            changed.save(path.with_stem(f"{path.stem}_{mark}"), quality=90)
    *_, line = remarks(open_data(DataConfig(dir=str(root)), {32}, shared_cache))
    assert line.startswith(
        "9 of 9 validation photographs and 9 of 9 test photographs have a copy in another part of the split "
        "(turned, mirrored, rescaled, compressed, or a copy by its name), so the accuracy is too high: "
    )
    assert line.count(" (train)") == 3
    assert line.endswith("; keep one of each, or give a split (train/, val/)")
