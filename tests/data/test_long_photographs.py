"""What a crop to a square leaves out is told where it is much."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.dataset import open_data
from tune_cropshield.data.long_photographs import long_photographs_lines
from tune_cropshield.data.remarks import remarks
from tune_cropshield.doctor.photographs import examine_photographs

WIDE = (
    "half of the photographs are 1.78 times as long as wide, or longer: the centre crop leaves out 44% of them; in "
    '[data], fit = "pad" or "squash" shows them whole, and fit = {choice = ["crop", "pad", "squash"]} in [space] '
    "searches which is best"
)


def wide_photographs(root: Path) -> Path:
    """Returns a folder of which every second photograph is square, and the others 16:9, upright or not."""
    for name in ("blight", "rust"):
        (root / name).mkdir(parents=True)
        for number, size in enumerate([(160, 90), (90, 160), (50, 50), (320, 180), (60, 60), (160, 90), (90, 160)]):
            Image.new("RGB", size, (number * 20, 100, len(name))).save(root / name / f"{number}.png")
    return root


def test_square_photographs_and_few_long_ones_are_not_told() -> None:
    assert long_photographs_lines([]) == []
    assert long_photographs_lines([(256, 256)] * 9 + [(1600, 900)] * 8) == []


def test_what_the_crop_leaves_out_of_the_middle_photograph_is_told_whichever_way_it_lies() -> None:
    assert long_photographs_lines([(1600, 900), (900, 1600), (100, 100)]) == [WIDE]
    (line,) = long_photographs_lines([(4000, 3000)])
    assert "1.33 times as long as wide, or longer: the centre crop leaves out 25% of them" in line


def test_a_start_and_doctor_tell_it_and_only_where_photographs_are_cropped(tmp_path: Path) -> None:
    root, cache = wide_photographs(tmp_path / "leaves"), tmp_path / "cache"
    data = DataConfig(dir=str(root), val_share=0.3)
    assert open_data(data, {32}, cache).store.sizes[:3] == ((160, 90), (90, 160), (50, 50))
    assert WIDE in remarks(open_data(data, {32}, cache))
    for others in (
        open_data(data.model_copy(update={"fit": "pad"}), {32}, cache),
        open_data(data, {32}, cache, fits=("crop", "squash")),
    ):
        assert not [line for line in remarks(others) if "the centre crop" in line]
    assert examine_photographs(DataConfig(dir=str(root)), 10.0, 1).long == (WIDE,)
