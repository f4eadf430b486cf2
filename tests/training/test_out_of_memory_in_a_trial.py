"""A whole trial that runs out of memory on the way: saved, noted, resumed; or given up."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, LeafData, open_data
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.errors import DeadContextError, OutOfMemory
from tune_cropshield.training.loop import run_trial, trial_epochs
from tune_cropshield.training.retries.out_of_memory import OutOfMemoryRetry
from tune_cropshield.training.run_folder import read_events, read_metrics

CPU = torch.device("cpu")


class FailingData(DeviceData):
    """Pictures that cannot be put on the device where `error_for` (their number) says so."""

    def __init__(self, data: LeafData, failures: dict[int, list[Exception]]) -> None:
        super().__init__(data, CPU)
        self.failures = failures  # by how many pictures are asked for at once; each error is raised once

    def feed(self, image_size: int) -> ImageFeed:
        return FailingFeed(super().feed(image_size), self.failures)


class FailingFeed(ImageFeed):
    def __init__(self, feed: ImageFeed, failures: dict[int, list[Exception]]) -> None:
        self.__dict__.update(feed.__dict__)
        self.failures = failures

    def stream(self, batches: Sequence[Tensor]) -> Generator[Tensor]:
        for place, pictures in enumerate(super().stream(batches)):
            errors = self.failures.get(len(batches[place]))
            if errors:
                raise errors.pop()
            yield pictures


def out_of_memory(times: int) -> list[Exception]:
    return [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.\nSome advice") for _ in range(times)
    ]


@pytest.fixture
def leaves(drawn_leaves: Path, shared_cache: Path) -> LeafData:
    return open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache)


def config(**trial: Any) -> RunConfig:
    settings = {
        "model": "tiny_cnn",
        "image_size": 32,
        "lr": 5e-3,
        "threads": 1,
        "epochs": 3,
        "schedule": "constant",
        "eval_batch": 24,
    }
    return RunConfig(trial=TrialConfig.model_validate({**settings, **trial}))


def test_a_trial_that_runs_out_of_memory_is_saved_and_says_so(leaves: LeafData, tmp_path: Path) -> None:
    failing = FailingData(leaves, {32: out_of_memory(1), 12: out_of_memory(1)})
    last = run_trial(config(eval_batch=12), failing, tmp_path, report=lambda report: None)
    step = OutOfMemoryRetry(1, "training", 32, 16, "CUDA out of memory. Tried to allocate 1.00 GiB.")
    evaluation = OutOfMemoryRetry(1, "evaluation", 12, 6, "CUDA out of memory. Tried to allocate 1.00 GiB.")
    assert last.oom_retries == (step, evaluation)
    assert last.finished
    assert [line["updates"] for line in read_metrics(tmp_path)] == [
        3,
        6,
        9,
    ]  # 96 photographs, 32 at once: the effective batch is what it was
    assert read_events(tmp_path)[0] == {
        "event": "out of memory",
        "epoch": 1,
        "part": "training",
        "before": 32,
        "after": 16,
        "reason": "CUDA out of memory. Tried to allocate 1.00 GiB.",
    }
    assert len(read_events(tmp_path)) == 2


def test_a_trial_without_accidents_has_no_events(leaves: LeafData, tmp_path: Path) -> None:
    last = run_trial(config(epochs=1), DeviceData(leaves, CPU), tmp_path, report=lambda report: None, memory_mib=100.0)
    assert (last.oom_retries, read_events(tmp_path)) == ((), [])


@pytest.mark.slow
def test_a_resumed_trial_keeps_the_lower_micro_batch(leaves: LeafData, tmp_path: Path) -> None:
    whole = FailingData(leaves, {32: out_of_memory(1)})
    run_trial(config(), whole, tmp_path / "whole", report=lambda report: None)
    epochs = trial_epochs(
        config(), FailingData(leaves, {32: out_of_memory(1)}), tmp_path / "parts", checkpoint_every_s=0
    )
    next(epochs)
    epochs.close()
    again = FailingData(leaves, {32: out_of_memory(1)})
    last = run_trial(config(), again, tmp_path / "parts", report=lambda report: None, resume=True)
    assert len(again.failures[32]) == 1  # no window of 32 was asked for any more
    assert [(step.before, step.after) for step in last.oom_retries] == [(32, 16)]
    losses = [[line["train_loss"] for line in read_metrics(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1]


def test_a_trial_that_never_fits_is_given_up_and_keeps_its_best_weights(leaves: LeafData, tmp_path: Path) -> None:
    failing = FailingData(leaves, {})
    epochs = trial_epochs(config(), failing, tmp_path)
    next(epochs)
    failing.failures |= {size: out_of_memory(5) for size in (32, 16, 8)}
    with pytest.raises(OutOfMemory, match="out of memory with micro-batches of 8, after 2 retries with fewer"):
        next(epochs)
    assert (tmp_path / "model.safetensors").exists()
    assert [event["after"] for event in read_events(tmp_path)] == [16, 8]


def test_a_dead_context_ends_the_process_and_not_the_trial(leaves: LeafData, tmp_path: Path) -> None:
    failing = FailingData(leaves, {})
    epochs = trial_epochs(config(), failing, tmp_path, checkpoint_every_s=0)
    next(epochs)
    failing.failures[32] = [torch.AcceleratorError("CUDA error: an illegal memory access was encountered")]
    with pytest.raises(DeadContextError, match="takes no more work"):
        next(epochs)
    last = run_trial(config(), DeviceData(leaves, CPU), tmp_path, report=lambda report: None, resume=True)
    assert last.metrics.epoch == 3
    run_trial(config(), DeviceData(leaves, CPU), tmp_path / "whole", report=lambda report: None)
    assert [line["train_loss"] for line in read_metrics(tmp_path)] == [
        line["train_loss"] for line in read_metrics(tmp_path / "whole")
    ]
