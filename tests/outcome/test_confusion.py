"""The confusion matrix as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tune_cropshield.outcome.confusion import CELL, GAP, confusion_csv, draw_confusion, write_confusion

COUNTS = np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]])
CLASSES = ["blight", "leaf, spotted", "rust"]
WHITE, GREEN = (255, 255, 255), (21, 101, 62)


def colour_of(image: Image.Image, row: int, column: int, num_classes: int) -> tuple[int, ...]:
    """The colour of a cell, beside its number; the matrix ends at the picture's lower right corner."""
    left, top = image.width - GAP - num_classes * CELL, image.height - GAP - num_classes * CELL
    colour = image.getpixel((left + column * CELL + 4, top + row * CELL + 4))
    assert isinstance(colour, tuple)
    return colour


def test_the_table_has_a_row_per_true_class() -> None:
    assert confusion_csv(COUNTS, CLASSES) == (
        'true \\ predicted,blight,"leaf, spotted",rust\nblight,8,2,0\n"leaf, spotted",0,5,5\nrust,0,0,0\n'
    )


def test_right_cells_are_green_wrong_ones_red_and_the_darker_the_larger_their_share() -> None:
    classes = [f"class {number} with a long name of its own" for number in range(3)]
    image = draw_confusion(COUNTS, classes, "val")

    assert colour_of(image, 0, 2, 3) == colour_of(image, 2, 2, 3) == WHITE  # nobody there
    for row, column in ((0, 0), (1, 1)):
        red, green, blue = colour_of(image, row, column, 3)
        assert green > red and green > blue
    for row, column in ((0, 1), (1, 2)):
        red, green, blue = colour_of(image, row, column, 3)
        assert red > green and red > blue
    assert sum(colour_of(image, 0, 0, 3)) < sum(colour_of(image, 1, 1, 3))  # 8 of 10, 5 of 10
    assert sum(colour_of(image, 1, 2, 3)) < sum(colour_of(image, 0, 1, 3))  # 5 of 10, 2 of 10
    assert colour_of(draw_confusion(np.diag([3, 3]), ["a class", "another class"], "val"), 1, 1, 2) == GREEN


def test_22_long_names_stand_whole_beside_their_rows_and_columns() -> None:
    names = [f"Tomato_Spider_mites_Two_spotted_spider_mite_{number:02d}" for number in range(22)]
    image = draw_confusion(np.eye(22, dtype=np.int64), names, "val")

    pixels = np.asarray(image.convert("L"))
    left, top = image.width - GAP - 22 * CELL, image.height - GAP - 22 * CELL
    assert (image.width, image.height) < (2000, 2000)
    for row in range(22):
        strip = pixels[top + row * CELL + 4 : top + (row + 1) * CELL - 4, :left]
        inked = np.flatnonzero((strip < 128).any(axis=0))
        assert (
            inked[0] >= GAP - 2 and left - 2 * GAP <= inked[-1] < left
        )  # neither cut at the edge nor drawn into the matrix
        strip = pixels[:top, left + row * CELL + 4 : left + (row + 1) * CELL - 4]
        inked = np.flatnonzero((strip < 128).any(axis=1))
        assert inked[-1] < top


def test_both_files_are_written_into_a_new_folder(tmp_path: Path) -> None:
    table, picture = write_confusion(tmp_path / "a" / "b", "test", COUNTS, CLASSES)

    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "confusion_test.csv",
        "confusion_test.png",
    ]
    assert table.read_text() == confusion_csv(COUNTS, CLASSES)
    with Image.open(picture) as image:
        assert image.size == draw_confusion(COUNTS, CLASSES, "test").size
