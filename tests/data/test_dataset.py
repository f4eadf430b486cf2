"""Photographs of several sizes: the same ones, in the same order, under the same labels."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.errors import DataError

MakeFolder = Callable[[Mapping[str, int]], Path]


def test_every_size_holds_the_same_photographs(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 30, "b": 30})
    (root / "a" / "3.png").write_text("not a picture")
    data = open_data(DataConfig(dir=str(root)), {16, 24}, tmp_path / "cache")

    small, large = data.store_for(16), data.store_for(24)
    assert (small.size, large.size) == (20, 28)
    assert len(small) == len(large) == 59
    assert small.paths == large.paths
    assert torch.equal(small.labels, large.labels)


def test_the_folder_is_read_once_for_all_sizes(make_folder: MakeFolder, tmp_path: Path) -> None:
    """A photograph that is added while the first size is decoded is not in the second one either."""
    root = make_folder({"a": 10, "b": 10})

    def add(done: int, total: int) -> None:
        shutil.copy(root / "b" / "0.png", root / "a" / "00.png")

    data = open_data(DataConfig(dir=str(root)), {16, 24}, tmp_path / "cache", add)
    assert len(data.store_for(16)) == len(data.store_for(24)) == 20
    assert data.store_for(16).paths == data.store_for(24).paths


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:50])])
def test_a_photograph_that_is_lost_between_two_sizes_shifts_no_label(
    make_folder: MakeFolder, tmp_path: Path, harm: Callable[[Path], object]
) -> None:
    root = make_folder({"a": 30, "b": 30})
    victim = root / "a" / "7.png"
    calls: list[int] = []

    def lose(done: int, total: int) -> None:
        calls.append(done)
        if len(calls) == 60:  # the first size is decoded
            harm(victim)

    with pytest.raises(DataError, match=r"1 of the photographs .* while they were decoded \(a/7\.png\): start again"):
        open_data(DataConfig(dir=str(root)), {16, 24}, tmp_path / "cache", lose)

    again = open_data(DataConfig(dir=str(root)), {16, 24}, tmp_path / "cache")
    assert len(again.store_for(16)) == len(again.store_for(24)) == 59
    assert again.store_for(16).paths == again.store_for(24).paths


def test_each_fit_has_pictures_of_its_own_of_the_same_photographs(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder({"a": 10, "b": 10})
    data = open_data(DataConfig(dir=str(root)), {16, 24}, tmp_path / "cache", fits=("squash", "crop"))
    assert len(data.stores) == 4
    assert len({store.fingerprint for store in data.stores.values()}) == 4
    assert {store.paths for store in data.stores.values()} == {data.store.paths}

    on_device = DeviceData(data, torch.device("cpu"))
    cropped, squashed = (
        next(on_device.as_said(DataConfig(fit=fit)).feed(24).stream([torch.arange(3)])) for fit in ("crop", "squash")
    )
    assert (cropped.shape, squashed.shape) == ((3, 28, 28, 3), (3, 24, 24, 3))
    feeds = [on_device.as_said(DataConfig(fit="crop")).feed(24) for _ in range(2)]
    assert feeds[0] is feeds[1]  # made once for all trials
