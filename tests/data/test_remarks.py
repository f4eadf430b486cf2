"""What is said of the photographs before a network is trained on them, and what a training keeps of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.dataset import DeviceData, LeafData, open_data
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.left_out import LeftOut, read_left_out
from tune_cropshield.data.remarks import remarks, to_beat
from tune_cropshield.data.split import Split
from tune_cropshield.errors import DataError


def opened(root: Path, cache: Path) -> LeafData:
    return open_data(DataConfig(dir=str(root)), {16}, cache)


@pytest.fixture
def leaves(tmp_path: Path) -> Path:
    """3 classes of 8 drawn leaves."""
    return draw_leaves(tmp_path / "leaves", classes=3, per_class=8, image_size=24)


@pytest.fixture
def given_split(leaves: Path, tmp_path: Path) -> Path:
    """The same leaves, 5 of a class in train and 3 in val."""
    for folder in sorted(leaves.iterdir()):
        for index, file in enumerate(sorted(folder.iterdir())):
            target = tmp_path / "split" / ("train" if index < 5 else "val") / folder.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)
    return tmp_path / "split"


FEW = (
    "3 validation photographs: one is 33.3 points of val_acc, and one of the smallest class is 100 points of its "
    "recall; some classes have fewer than 5: "
)


def test_of_a_tidy_but_small_folder_only_its_few_validation_photographs_are_told(
    leaves: Path, shared_cache: Path
) -> None:
    (line,) = remarks(opened(leaves, shared_cache))
    assert line.startswith(FEW)


def test_nothing_is_said_of_a_tidy_folder_of_some_size(tmp_path: Path, shared_cache: Path) -> None:
    root = draw_leaves(tmp_path / "leaves", classes=2, per_class=500, image_size=16)
    assert remarks(opened(root, shared_cache)) == []


def test_classes_of_unequal_size_are_told_with_what_a_network_has_to_beat(leaves: Path, shared_cache: Path) -> None:
    first, second, third = sorted(leaves.iterdir())
    for folder in (second, third):
        for file in sorted(folder.iterdir())[4:]:
            file.unlink()
    for index, file in enumerate(sorted(first.iterdir())):
        shutil.copy(file, first / f"again{index}.jpg")
    assert remarks(opened(leaves, shared_cache))[0] == (
        f"classes of unequal size: largest : smallest = 16 {first.name} : 4 {second.name}, 4.0 times as many; always "
        f"answering {first.name} has accuracy 0.667 and macro F1 0.267 (balanced accuracy 0.333)"
    )


def test_what_a_network_has_to_beat_is_what_the_largest_class_reaches_on_validation() -> None:
    split = Split(np.arange(10, 80), np.concatenate((np.arange(8), [60, 75])), np.arange(0))
    beat = (
        "to beat: always answering healthy would reach val_acc 0.8000, val_macro_f1 0.2963 and val_balanced_acc 0.3333"
    )
    assert to_beat(split, ("healthy", "rust", "scab"), [0] * 60 + [1] * 15 + [2] * 5) == beat
    of_similar = [0] * 32 + [2] * 25 + [1] * 3 + [2] * 5 + [1] * 15
    assert to_beat(split, ("healthy", "rust", "scab"), of_similar[:60] + [1] * 15 + [2] * 5) == (
        f"{beat}; classes: largest : smallest = 32 healthy : 18 rust, 1.8 times as many"
    )


def test_a_given_split_is_used_as_it_is_and_said(given_split: Path, shared_cache: Path) -> None:
    data = opened(given_split, shared_cache)
    assert [len(side) for side in (data.split.train, data.split.val, data.split.test)] == [15, 9, 0]
    assert all(data.store.paths[index].startswith("val/") for index in data.split.val)
    assert remarks(data)[1:] == ["the split is used as the folders give it; it has no test photographs"]
    with pytest.raises(DataError, match=r"holds no test photographs: its folders name other parts of a split"):
        DeviceData(data, data.store.images.device).indices("test")


def test_identical_photographs_on_both_sides_of_a_given_split_are_told(given_split: Path, shared_cache: Path) -> None:
    source = sorted((given_split / "train").rglob("*.jpg"))[0]
    shutil.copy(source, given_split / "val" / source.parent.name / "copy.jpg")
    name = source.relative_to(given_split).as_posix()
    assert remarks(opened(given_split, shared_cache))[2:] == [
        "1 photograph of val and test is identical to others of the split, so the accuracy is too high: "
        f"{name} = val/{source.parent.name}/copy.jpg"
    ]


def test_validation_that_is_cut_from_train_is_no_split_as_given(given_split: Path, shared_cache: Path) -> None:
    (given_split / "val").rename(given_split / "test")
    data = opened(given_split, shared_cache)
    assert [len(side) for side in (data.split.train, data.split.val, data.split.test)] == [12, 3, 9]
    assert remarks(data)[1:] == [
        "the folders contain no validation photographs: 3 photographs of train, chosen by content, are used"
    ]


def test_identical_photographs_in_two_classes_are_told(leaves: Path, shared_cache: Path) -> None:
    first, second, third = sorted(leaves.iterdir())
    one, other = sorted(first.iterdir())[:2]
    shutil.copy(one, second / "same.jpg")
    shutil.copy(one, third / "same.jpg")
    shutil.copy(other, second / "other.jpg")
    shutil.copy(other, first / "x.jpg")  # in its own class
    assert remarks(opened(leaves, shared_cache))[1:] == [
        "2 photographs lie in more than one class as identical files, so at most one of the labels is right: "
        f"{first.name}/{one.name} = {second.name}/same.jpg = {third.name}/same.jpg, {first.name}/{other.name} = "
        f"{second.name}/other.jpg; keep each in one class only"
    ]


def test_a_training_tells_and_keeps_what_it_left_out(
    leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = sorted(leaves.iterdir())[0].name
    (leaves / name / "zero.jpg").write_bytes(b"")
    (leaves / name / "notes.txt").write_text("")
    (home / "config.toml").write_text('[trial]\nmodel = "tiny_cnn"\nimage_size = 16\nepochs = 1\n')
    out = home / "run"
    assert main(["train", "--config", str(home / "config.toml"), "--data", str(leaves), "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said.count(f"left out: {name}/zero.jpg (empty file)") == 1
    assert said.count("ignored, not photographs: 1 .txt") == 1
    assert read_left_out(out) == [
        LeftOut(f"{name}/notes.txt", "other", "no photograph", name),
        LeftOut(f"{name}/zero.jpg", "unreadable", "empty file", name),
    ]
