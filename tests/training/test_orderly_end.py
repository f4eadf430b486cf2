"""When a training ends that is asked to: with its epoch where that is short, else at once."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.training.loop import run_trial
from tune_cropshield.training.orderly_end import OrderlyEnd, orderly_end
from tune_cropshield.training.progress import TrialReport
from tune_cropshield.training.run_folder import RunFolder, read_metrics


def test_the_end_of_a_short_epoch_is_waited_for_and_said_once() -> None:
    told: list[str] = []
    end = OrderlyEnd(lambda: told.append("waits"))
    end.epoch_ended(9.9)

    end.ask()

    assert told == ["waits"]
    with pytest.raises(KeyboardInterrupt):
        end.epoch_ended(9.9)


def test_a_long_epoch_one_that_nothing_came_before_and_a_second_wish_end_at_once() -> None:
    first, long, twice = (OrderlyEnd(lambda: None) for _ in range(3))
    long.epoch_ended(10.0)
    twice.epoch_ended(1.0)
    twice.ask()

    for end in (first, long, twice):
        with pytest.raises(KeyboardInterrupt):
            end.ask()


def test_ctrl_c_within_an_epoch_keeps_every_epoch_that_was_trained(
    drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    settings = TrialConfig(model="tiny_cnn", image_size=32, epochs=500, threads=1)
    config = RunConfig(data=DataConfig(dir=str(drawn_leaves)), trial=settings)
    data = DeviceData(open_data(config.data, {32}, shared_cache), torch.device("cpu"))
    notes: list[str] = []

    with orderly_end(notes.append) as end, pytest.raises(KeyboardInterrupt):

        def report(done: TrialReport) -> None:
            if done.metrics.epoch == 3:
                threading.Timer(done.metrics.epoch_s / 2, os.kill, (os.getpid(), signal.SIGINT)).start()
            end.epoch_ended(done.metrics.epoch_s)

        run_trial(config, data, tmp_path, report)

    trained = len(read_metrics(tmp_path))
    assert 3 < trained < 500
    assert notes == ["stopping at the end of this epoch (press again to stop at once)"]
    checkpoint, damage = RunFolder(tmp_path).checkpoint()
    assert damage == []
    assert checkpoint is not None and len(read_metrics(tmp_path)) == checkpoint["progress"]["metrics"]["epoch"]
