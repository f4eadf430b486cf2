"""A disk that fills up while a network is trained: everything so far stays whole, and training goes on once there is
space.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_disks import fill, mounted

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.errors import DiskFull, UserError
from tune_cropshield.files import append_line, write_text_atomically
from tune_cropshield.training.loop import run_trial, trial_epochs
from tune_cropshield.training.run_folder import RunFolder, read_metrics

TIMINGS = ("images_per_s", "data_wait_s", "epoch_s")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """8 MiB."""
    with mounted(tmp_path / "disk", "size=8m") as folder:
        yield folder


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache), torch.device("cpu"))


def config() -> RunConfig:
    return RunConfig(
        trial=TrialConfig(
            model="tiny_cnn", image_size=32, augment="none", schedule="onecycle", lr=5e-3, threads=1, epochs=4
        )
    )


def exact(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in read_metrics(folder)]


# From nothing at all, over room for a line of metrics and some weights, to room for all but the last checkpoint.
@pytest.mark.parametrize("room_kib", [0, 8, 200, 600, 1100, 1500])
def test_a_disk_that_fills_up_stops_a_training_and_loses_none_of_it(
    room_kib: int, data: DeviceData, disk: Path, tmp_path: Path
) -> None:
    run_trial(config(), data, tmp_path / "whole", report=lambda report: None)
    folder = disk / "run"
    epochs = trial_epochs(config(), data, folder, checkpoint_every_s=0)
    next(epochs)
    filler = fill(disk, room_kib * 1024)

    with pytest.raises(
        DiskFull, match=r"no space left on the disk while writing .*: free some, then continue with --resume"
    ):
        for _ in epochs:
            pass

    assert (folder / "metrics.jsonl").read_text().endswith("}\n")
    assert [line["epoch"] for line in read_metrics(folder)] == list(range(1, len(read_metrics(folder)) + 1))
    state, damage = RunFolder(folder).checkpoint()
    assert state is not None and damage == []
    load_file(folder / "model.safetensors")
    assert not list(folder.glob(".*"))

    filler.unlink()
    run_trial(config(), data, folder, report=lambda report: None, resume=True)
    assert exact(folder) == exact(tmp_path / "whole")


def test_a_training_that_cannot_even_begin_says_so(data: DeviceData, disk: Path) -> None:
    fill(disk)
    with pytest.raises(DiskFull):
        run_trial(config(), data, disk / "run", report=lambda report: None)


def test_a_full_disk_is_the_users_to_put_right() -> None:
    assert issubclass(DiskFull, UserError)  # exit code 2


def test_a_line_that_does_not_fit_leaves_no_half_of_it(disk: Path) -> None:
    append_line(disk / "lines", "first")
    filler = fill(disk)
    with pytest.raises(DiskFull, match=r"while writing .*lines"):
        append_line(disk / "lines", "x" * 10_000)
    assert (disk / "lines").read_text() == "first\n"
    filler.unlink()
    append_line(disk / "lines", "second")
    assert (disk / "lines").read_text() == "first\nsecond\n"


def test_a_file_that_does_not_fit_leaves_the_old_one(disk: Path) -> None:
    write_text_atomically(disk / "file", "old")
    fill(disk)
    with pytest.raises(DiskFull, match=r"while writing .*file"):
        write_text_atomically(disk / "file", "new" * 10_000)
    assert (disk / "file").read_text() == "old"
    assert sorted(path.name for path in disk.iterdir()) == ["file", "filler"]
