"""What the borders of photographs tell of their classes, on drawn ones where it is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.background import Background, background_of
from tune_cropshield.data.dataset import open_data
from tune_cropshield.data.remarks import remarks
from tune_cropshield.doctor.photographs import examine_photographs

MIDDLE = slice(10, 30)


def draw(folder: Path, backgrounds: list[int], per_class: int = 40, noise: int = 20) -> Path:
    """Draws classes whose leaves tell nothing: a background of about this grey, spots of any colour in the middle."""
    generator = np.random.default_rng(0)
    for name, grey in enumerate(backgrounds):
        (folder / f"class{name}").mkdir(parents=True)
        for number in range(per_class):
            pixels = np.full((40, 40, 3), float(grey)) + generator.normal(0, noise, 3)
            pixels[MIDDLE, MIDDLE] = np.kron(generator.integers(0, 255, (5, 5, 3)), np.ones((4, 4, 1)))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / f"class{name}" / f"{number:03d}.png")
    return folder


def examined(folder: Path, **data: str) -> Background:
    found = examine_photographs(DataConfig.model_validate({"dir": str(folder), **data}), 9.0, 1).background
    assert found is not None
    return found


def test_backgrounds_that_differ_by_class_are_warned_about_and_equal_ones_are_not(
    tmp_path: Path, shared_cache: Path
) -> None:
    telling = examined(draw(tmp_path / "telling", [40, 110, 180]))
    silent = examined(draw(tmp_path / "silent", [110, 110, 110]))

    assert (telling.photographs, telling.largest, telling.chance) == (120, 1 / 3, 1 / 3)
    assert telling.accuracy > 0.9 and telling.tells_too_much
    assert 0.2 < silent.accuracy < 0.5 and not silent.tells_too_much
    warning = (
        "the background gives the class away, unless leaves reach to the border: expect a lower accuracy in the field"
    )
    told = remarks(open_data(DataConfig(dir=str(tmp_path / "telling")), {32}, shared_cache))
    assert told[-1].startswith("eight small patches at the border of a photograph tell the class of 100 % ")
    assert told[-1].endswith(f" of the photographs (always the largest class: 33 %, guessing: 33 %): {warning}")
    told = remarks(open_data(DataConfig(dir=str(tmp_path / "silent")), {32}, shared_cache))
    assert not any("border" in line for line in told)


def test_photographs_of_one_plant_do_not_tell_each_others_class() -> None:
    generator = np.random.default_rng(0)
    plants = np.repeat(np.arange(40), 5)  # views of 40 plants in 2 classes, each plant before a background of its own
    of_plant = generator.integers(0, 255, (40, 16, 16, 3))
    thumbnails = of_plant[plants].astype(np.uint8)
    labels = (plants % 2).tolist()

    apart = background_of(thumbnails, labels, [str(view) for view in range(200)], [])
    together = background_of(thumbnails, labels, [str(plant) for plant in plants], [])
    copies = [np.flatnonzero(plants == plant).tolist() for plant in range(40)]
    as_copies = background_of(thumbnails, labels, [str(view) for view in range(200)], copies)

    assert apart is not None and apart.accuracy > 0.85 and apart.tells_too_much
    assert together is not None and together.accuracy < 0.7 and not together.tells_too_much
    assert as_copies == together


def test_always_naming_the_largest_class_is_no_background() -> None:
    thumbnails = np.random.default_rng(0).integers(0, 255, (200, 16, 16, 3), dtype=np.uint8)

    found = background_of(thumbnails, [0] * 190 + [1] * 10, [str(number) for number in range(200)], [])

    assert found == Background(0.95, 0.95, 0.5, 200) and not found.tells_too_much


@pytest.mark.parametrize("labels", [[0, 1] * 24, [0] * 60])
def test_nothing_is_said_of_few_photographs_or_one_class(labels: list[int]) -> None:
    thumbnails = np.zeros((len(labels), 16, 16, 3), dtype=np.uint8)

    assert background_of(thumbnails, labels, [str(number) for number in range(len(labels))], []) is None


def test_the_same_photographs_give_the_same_figure_in_doctor_and_before_a_search(
    tmp_path: Path, shared_cache: Path
) -> None:
    folder = draw(tmp_path / "leaves", [90, 110])
    data = open_data(DataConfig(dir=str(folder)), {32}, shared_cache)

    of_store = background_of(data.store.thumbnails(), data.store.labels.tolist(), data.keys, data.copies)

    assert of_store == examined(folder)


@pytest.mark.slow
def test_the_background_of_plantvillage_tells_its_classes(real_leaves: Path) -> None:
    found = examined(real_leaves)

    assert 0.38 < found.accuracy < 0.5 and found.largest < 0.07 and found.tells_too_much
