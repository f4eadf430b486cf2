"""A reused worker, without a Ray runtime: what one trial leaves to the next, and what it must not."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import LeafData, open_data
from tune_cropshield.errors import DiskFull
from tune_cropshield.memory.guard import why_retire
from tune_cropshield.search.worker import TrialWorker
from tune_cropshield.training.clock import TrialClock, read_times
from tune_cropshield.training.metrics import METRIC_NAMES
from tune_cropshield.training.run_folder import RunFolder, read_events, read_metrics


def trial(number: int, folder: Path, **settings: Any) -> dict[str, Any]:
    run = RunConfig(
        data=DataConfig(dir="x"),
        trial=TrialConfig(model="tiny_cnn", image_size=32, epochs=2, threads=1, lr=1e-3, **settings),
    )
    return {
        "number": number,
        "folder": str(folder / f"t{number:03d}"),
        "run": run.model_dump(),
        "parts": [],
        "checkpoint_after": (),
    }


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> LeafData:
    return open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache)


@pytest.fixture
def worker(data: LeafData, tmp_path: Path) -> Iterator[TrialWorker]:
    """A worker that has trained an epoch of trial 0."""
    worker = TrialWorker.__new__(TrialWorker)
    worker.setup(trial(0, tmp_path), data=data, device="cpu", memory_mib=None, resident_bytes=0)
    worker.step()
    yield worker
    worker.cleanup()
    gc.unfreeze()  # libraries would call all that a worker has frozen a leak when the tests end


def num_networks() -> int:
    gc.collect()
    return sum(issubclass(type(thing), nn.Sequential) for thing in gc.get_objects())


def test_a_trial_leaves_no_network_behind_and_the_next_reads_the_same_pictures(
    worker: TrialWorker, tmp_path: Path
) -> None:
    feed, one_trial = worker._data.feed(32), num_networks()
    assert one_trial > 0
    assert worker.reset_config(trial(1, tmp_path, seed=1))
    assert worker.step()["epoch"] == 1
    assert num_networks() == one_trial  # trial 1's, and nothing of trial 0's
    assert worker._data.feed(32) is feed
    assert [len(read_metrics(tmp_path / name)) for name in ("t000", "t001")] == [1, 1]


def test_only_a_trial_that_may_go_on_leaves_a_checkpoint(worker: TrialWorker, tmp_path: Path) -> None:
    worker.reset_config(trial(1, tmp_path))  # as Ray does once trial 0 was pruned
    worker.step()
    worker.cleanup()  # as at the end of an interrupted search
    assert [RunFolder(tmp_path / name).checkpoint()[0] is not None for name in ("t000", "t001")] == [False, True]


def test_a_finished_trials_time_ends_with_its_last_epoch(worker: TrialWorker, tmp_path: Path) -> None:
    assert worker.step()["done"]
    assert read_times(tmp_path / "t000")[-1]["what"] == "end"


def test_a_disk_that_fills_up_with_a_trials_last_line_harms_neither_it_nor_the_next(
    worker: TrialWorker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = TrialClock.write

    def full_at_the_end(clock: TrialClock, what: str) -> None:
        if what == "end":
            raise DiskFull("no space left on the disk")
        write(clock, what)

    monkeypatch.setattr(TrialClock, "write", full_at_the_end)
    assert worker.reset_config(trial(1, tmp_path))  # trial 0 was pruned
    assert [worker.step()["done"], worker.step()["done"]] == [False, True]


@pytest.mark.slow
def test_a_trial_gives_the_same_numbers_whatever_ran_before_it_in_its_process(
    worker: TrialWorker, tmp_path: Path
) -> None:
    """fp16's loss scale is not handed on: a first trial that lowers it leaves the next as it would be alone."""
    settings: dict[str, Any] = {"precision": "fp16", "effective_batch": 8, "optimizer": "sgd", "dropout": 0.3}
    worker.reset_config(trial(1, tmp_path, **settings))
    alone = worker.step()
    assert (alone["loss_scale"], alone["skipped_steps"]) == (32768.0, 1)  # from 65,536 on
    with overflowing(4):
        worker.reset_config(trial(2, tmp_path, **settings))
        assert worker.step()["loss_scale"] == 4096.0
    worker.reset_config(trial(3, tmp_path, **settings))
    again = worker.step()
    timings = ("images_per_s", "data_wait_s", "epoch_s")
    assert {name: again[name] for name in METRIC_NAMES if name not in timings} == {
        name: alone[name] for name in METRIC_NAMES if name not in timings
    }


@contextmanager
def overflowing(calls: int) -> Iterator[None]:
    """Inside, the first so many gradients of a classifier are inf."""
    left = [calls]

    def overflow(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
        if not isinstance(module, nn.Linear) or not torch.is_grad_enabled() or not left[0]:
            return None
        left[0] -= 1
        return output * float("inf")

    handle = register_module_forward_hook(overflow)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("text", "replaced"),
    [("CUDA error: device-side assert triggered", True), ("CUDA error: invalid argument", False)],
)
def test_a_fault_of_the_program_on_the_gpu_fails_its_trial_at_once(
    worker: TrialWorker, tmp_path: Path, text: str, replaced: bool
) -> None:
    (tmp_path / "wrong.py").write_text(f"""
import torch
from tune_cropshield.training.losses import SampleLoss

class Wrong(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        raise torch.AcceleratorError({text!r})
""")
    worker.reset_config(trial(1, tmp_path, loss=f"{tmp_path}/wrong.py:Wrong"))
    result = worker.step()
    assert (result["done"], result["outcome"]) == (True, "failed")
    assert text in result["reason"]
    assert text in (tmp_path / "t001" / "error.txt").read_text()

    worker.reset_config(trial(2, tmp_path))
    told = [event["reason"] for event in read_events(tmp_path / "t002")]
    expected = ["the GPU stopped working after the last trial: its worker process was replaced"] if replaced else []
    assert told == expected


def test_a_worker_retires_when_a_trial_has_left_memory_behind() -> None:
    assert why_retire(allocated_mib=850.0, kept_mib=800.0) is None
    assert why_retire(900.0, 500.0) == "400 MiB of the last trial were still allocated: its worker process was replaced"
