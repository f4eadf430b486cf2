"""Which class is taken for which: a confusion matrix as CSV for programs and as PNG for people.

K: classes; rows are the true classes, columns the predicted ones.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from tune_cropshield.files import write_atomically, write_text_atomically
from tune_cropshield.outcome import words

Counts = npt.NDArray[np.int64]
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
CELL, GAP, FONT_SIZE = 44, 12, 15  # px
WHITE, INK, PALE_INK = (255, 255, 255), (32, 33, 36), (150, 150, 150)
RIGHT, WRONG = (21, 101, 62), (178, 34, 34)  # colour of a full cell on the diagonal, and off it


def write_confusion(folder: Path, split: str, counts_KK: Counts, classes: Sequence[str]) -> tuple[Path, Path]:
    """Writes confusion_SPLIT.csv and .png into `folder`, which is made where it is missing, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / f"confusion_{split}.csv", folder / f"confusion_{split}.png"
    write_text_atomically(table, confusion_csv(counts_KK, classes))
    write_atomically(
        picture, lambda file: draw_confusion(counts_KK, classes, split).save(file, format="PNG", optimize=True)
    )
    return table, picture


def confusion_csv(counts_KK: Counts, classes: Sequence[str]) -> str:
    """Returns a row per true class: its name, then how many of its photographs were taken for each class."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["true \\ predicted", *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts_KK.tolist(), strict=True))
    return text.getvalue()


def draw_confusion(counts_KK: Counts, classes: Sequence[str], split: str) -> Image.Image:
    """Returns the matrix as a picture.

    A cell is the darker the larger its share of its row, its number is the count; green is right, red is wrong.

    Every class keeps its full name: rows at the left, columns turned by a quarter above. A class without photographs
    has a blank row.
    """
    font, small = ImageFont.load_default(FONT_SIZE), ImageFont.load_default(FONT_SIZE - 2)
    widest = max(round(font.getlength(name)) for name in classes)
    side, title = len(classes) * CELL, 2 * FONT_SIZE + GAP
    left, top = max(widest, 3 * FONT_SIZE) + 2 * GAP, title + widest + 2 * GAP + 2 * FONT_SIZE
    headline = (
        f"{split}: {int(counts_KK.trace())} of {int(counts_KK.sum())} right "
        f"({words.percent(counts_KK.trace() / max(counts_KK.sum(), 1))})"
    )
    image = Image.new("RGB", (max(left + side, GAP + round(font.getlength(headline))) + GAP, top + side + GAP), WHITE)
    draw = ImageDraw.Draw(image)
    draw.text((GAP, GAP), headline, INK, font)
    draw.text((left, title), "predicted", PALE_INK, font)
    draw.text((left - GAP, top - GAP), "true", PALE_INK, font, anchor="rs")
    totals_K = counts_KK.sum(axis=1)
    for row, name in enumerate(classes):
        middle = top + row * CELL + CELL // 2
        draw.text((left - GAP, middle), name, INK, font, anchor="rm")
        _draw_upwards(image, name, (left + row * CELL + CELL // 2 - FONT_SIZE // 2 - 2, top - GAP), font, INK)
        for column, count in enumerate(counts_KK[row].tolist()):
            share = count / totals_K[row] if totals_K[row] else 0.0
            colour = (
                _mixed(RIGHT if row == column else WRONG, share if row == column else min(0.15 + share, 1.0))
                if count
                else WHITE
            )
            x, y = left + column * CELL, top + row * CELL
            draw.rectangle((x, y, x + CELL, y + CELL), fill=colour, outline=(225, 225, 225))
            if count:
                ink = WHITE if sum(colour) < 420 else INK
                draw.text(
                    (x + CELL // 2, y + CELL // 2), str(count), ink, font if count < 10_000 else small, anchor="mm"
                )
    return image


def _mixed(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    """Returns the colour at `share` of the way from white."""
    red, green, blue = (round(255 + (part - 255) * share) for part in colour)
    return red, green, blue


def _draw_upwards(image: Image.Image, text: str, foot: tuple[int, int], font: Font, ink: tuple[int, int, int]) -> None:
    """Writes `text` turned by a quarter, beginning at `foot` (its lower left corner) and going up."""
    width, height = round(font.getlength(text)) + 2, FONT_SIZE + 6
    label = Image.new("RGB", (width, height), WHITE)
    ImageDraw.Draw(label).text((0, 0), text, ink, font)
    image.paste(label.rotate(90, expand=True), (foot[0], foot[1] - width))
