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
from tune_cropshield.data.near_copies import groups_by_look, groups_of_near_copies, thumbnail, unmarked
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


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_of_each_photograph_is_found_and_nothing_else(leaves: list[Image.Image], change: str) -> None:
    both = np.stack([thumbnail(photograph) for photograph in [*leaves, *map(CHANGES[change], leaves)]])
    assert groups_by_look(both) == [[number, number + 60] for number in range(60)]


def test_different_photographs_are_no_copies(leaves: list[Image.Image]) -> None:
    assert groups_by_look(np.stack([thumbnail(leaf) for leaf in leaves])) == []


def test_pictures_of_one_colour_are_not_compared() -> None:
    plain = np.stack([thumbnail(Image.new("RGB", (32, 32), colour)) for colour in ("red", "green", "blue", "red")])
    assert groups_by_look(plain) == []


def recompressed(photograph: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    photograph.save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


def test_copies_of_real_leaves_are_found_and_nothing_else(real_leaves: Path) -> None:
    photographs = [decode_rgb(path) for path in photographs_below(real_leaves)[0]]
    changes = [
        lambda photograph: photograph.rotate(90, expand=True),
        ImageOps.mirror,
        lambda photograph: photograph.resize((photograph.width // 2, photograph.height // 2)),
        recompressed,
        lambda photograph: recompressed(ImageOps.flip(photograph.resize((100, 100)))),
    ]
    copied = range(0, len(photographs), 5)
    copies = [changes[number % 5](photographs[index]) for number, index in enumerate(copied)]

    found = groups_by_look(np.stack([thumbnail(photograph) for photograph in [*photographs, *copies]]))

    pairs = {(one, other) for group in found for one in group for other in group if one < other}
    right = {(index, len(photographs) + number) for number, index in enumerate(copied)}
    assert len(right) > 500
    assert len(pairs & right) >= 0.99 * len(right)
    assert len(pairs & right) >= 0.99 * len(pairs)


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
        ("a/leaf_view2.jpg", "a/leaf"),
        ("a/leaf_angle_30.jpg", "a/leaf"),
        ("a/leaf_angle_120.jpg", "a/leaf"),
        ("a/leaf_view_007.jpg", "a/leaf_view_007"),
        ("a/leaf_view_0012.jpg", "a/leaf_view_0012"),
        ("a/overview2.jpg", "a/overview2"),
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


@pytest.mark.parametrize("name", ["a/leaf_view_{:03d}.jpg", "a/leaf_view{}.jpg", "a/leaf_augmented_{}.jpg"])
def test_photographs_that_are_numbered_are_no_views_of_one_leaf(name: str) -> None:
    assert groups_of_near_copies([], [name.format(number) for number in range(1, 501)]) == []


def test_a_view_every_ten_degrees_is_one_leaf() -> None:
    assert groups_of_near_copies([], [f"a/leaf_angle_{10 * turn}.jpg" for turn in range(36)]) == [list(range(36))]


def test_copies_are_found_by_their_names_where_they_look_different(leaves: list[Image.Image]) -> None:
    thumbnails = np.stack([thumbnail(leaf) for leaf in leaves[:4]])
    given = ["a/1.jpg", "a/1_new30degFlipLR.jpg", "b/1.jpg", "a/2.jpg"]
    assert groups_of_near_copies(groups_by_look(thumbnails), given) == [[0, 1]]


def test_copies_on_two_sides_of_the_split_are_counted_before_training(tmp_path: Path, shared_cache: Path) -> None:
    root = draw_leaves(tmp_path / "leaves", classes=3, per_class=10, image_size=48)
    for path in photographs_below(root)[0]:
        photograph = decode_rgb(path)
        for mark, changed in (("90deg", photograph.rotate(90)), ("flipLR", ImageOps.mirror(photograph))):
            changed.save(path.with_stem(f"{path.stem}_{mark}"), quality=90)
    *_, line = remarks(open_data(DataConfig(dir=str(root), group="none"), {32}, shared_cache))
    assert line.startswith(
        "9 of 9 validation photographs and 9 of 9 test photographs have a copy in another part of the split "
        "(turned, mirrored, rescaled, compressed, or a copy by its name), so the accuracy is too high: "
    )
    assert line.count(" (train)") == 3
    assert line.endswith("; keep one of each, or give a split (train/, val/)")
