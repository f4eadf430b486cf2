"""fp16 that does not do: the trial goes on in fp32, from where it last was well. On a CPU, where fp16 with its scaler
runs too.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._pytree import tree_flatten

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.errors import DivergedError
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.clock import read_times
from tune_cropshield.training.loop import run_trial, trial_epochs
from tune_cropshield.training.models import build_model
from tune_cropshield.training.progress import TrialReport
from tune_cropshield.training.retries.wider_precision import PrecisionPolicy
from tune_cropshield.training.run_folder import read_events, read_metrics

TIMINGS = ("images_per_s", "data_wait_s", "epoch_s")


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {16, 32}, shared_cache), torch.device("cpu"))


def config(**trial: Any) -> RunConfig:
    settings = {
        "model": "tiny_cnn",
        "image_size": 16,
        "augment": "none",
        "schedule": "onecycle",
        "lr": 5e-3,
        "threads": 1,
        "epochs": 3,
    }
    return RunConfig(trial=TrialConfig.model_validate({**settings, "precision": "fp16", **trial}))


def exact(folder: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name not in TIMINGS} for line in read_metrics(folder)]


@pytest.fixture
def loud_weights(tmp_path: Path) -> Path:
    """A network whose first activations pass fp16's 65,504; its batch norm brings them back, so that fp32 trains it."""
    weights = build_model("tiny_cnn", 4).state_dict()
    first = next(name for name, value in weights.items() if value.ndim == 4)
    weights[first] = weights[first] * 1e7
    save_file(weights, tmp_path / "loud.safetensors")
    return tmp_path / "loud.safetensors"


@contextmanager
def overflowing(calls: range) -> Iterator[list[int]]:
    """Inside, the head's outputs are inf in those of its training calls in fp16, counted from 0. Yields a list that
    holds the count.
    """
    count = [0]

    def overflow(module: nn.Module, inputs: Any, output: Tensor) -> Tensor | None:
        if not isinstance(module, nn.Linear) or not torch.is_grad_enabled() or not torch.is_autocast_enabled("cpu"):
            return None
        count[0] += 1
        return output * float("inf") if count[0] - 1 in calls else None

    handle = register_module_forward_hook(overflow)
    try:
        yield count
    finally:
        handle.remove()


@pytest.mark.slow
def test_a_network_too_loud_for_fp16_is_trained_in_fp32_as_if_it_had_been_asked_for(
    loud_weights: Path, data: DeviceData, tmp_path: Path
) -> None:
    last = run_trial(config(pretrained=str(loud_weights)), data, tmp_path / "fp16", report=lambda report: None)
    run_trial(
        config(pretrained=str(loud_weights), precision="fp32"), data, tmp_path / "fp32", report=lambda report: None
    )
    (told,) = last.notes
    assert told.startswith("training in fp16 failed (") and told.endswith("): it continues in fp32 after epoch 0")
    (event,) = read_events(tmp_path / "fp16")
    assert (event["event"], event["before"], event["after"], event["epoch"]) == ("precision", "fp16", "fp32", 0)
    assert exact(tmp_path / "fp16") == exact(tmp_path / "fp32")
    statistics = [
        value for name, value in load_file(tmp_path / "fp16" / "model.safetensors").items() if "running" in name
    ]
    assert len(statistics) == 8 and all(torch.isfinite(value).all() for value in statistics)


@pytest.mark.slow
def test_fifty_infinite_gradients_lead_back_to_the_last_good_epoch(data: DeviceData, tmp_path: Path) -> None:
    """24 updates an epoch; from the 30th training call on, in epoch 2, all overflow."""
    settings = {"effective_batch": 4, "epochs": 4}
    with overflowing(range(29, 79)) as count:
        last = run_trial(config(**settings), data, tmp_path / "hurt", report=lambda report: None)
    assert count[0] == 48  # two epochs in fp16, the second of which came to nothing
    assert last.finished
    (event,) = read_events(tmp_path / "hurt")
    assert (event["epoch"], event["after"]) == (1, "fp32")
    lines = read_metrics(tmp_path / "hurt")
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert [line["loss_scale"] for line in lines][1:] == [1.0, 1.0, 1.0]  # no scaler any more
    run_trial(config(**settings), data, tmp_path / "whole", report=lambda report: None)
    assert exact(tmp_path / "hurt")[0] == exact(tmp_path / "whole")[0]  # nothing of the good epoch is lost


@pytest.mark.slow
def test_an_epoch_that_came_to_nothing_is_time_of_steps_and_not_of_evaluation(data: DeviceData, tmp_path: Path) -> None:
    """Its 24 windows take 30 ms more each."""

    def wait(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if isinstance(module, nn.Linear) and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            time.sleep(0.03)

    handle = register_module_forward_hook(wait)
    try:
        with overflowing(range(0, 24)):
            run_trial(config(effective_batch=4, epochs=1), data, tmp_path, report=lambda report: None)
    finally:
        handle.remove()
    assert [event["after"] for event in read_events(tmp_path)] == ["fp32"]
    [epoch] = [line for line in read_times(tmp_path) if line["what"] == "epoch"]
    assert epoch["step"] >= 24 * 0.03 > epoch["evaluation"]


@pytest.mark.slow
def test_a_few_infinite_gradients_are_skipped_in_fp16(data: DeviceData, tmp_path: Path) -> None:
    with overflowing(range(5, 8)):
        last = run_trial(config(effective_batch=4, epochs=1, image_size=32), data, tmp_path, report=lambda report: None)
    assert (last.notes, last.metrics.skipped_steps, last.metrics.loss_scale) == ((), 3, 8192.0)


@pytest.mark.slow
def test_what_diverges_in_fp32_too_is_not_saved(data: DeviceData, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="a gradient stopped being finite"):
        run_trial(
            config(lr=1e30, optimizer="sgd", schedule="constant", warmup_epochs=0.0),
            data,
            tmp_path,
            report=lambda report: None,
        )
    assert [event["after"] for event in read_events(tmp_path)] == ["fp32"]


@pytest.mark.slow
def test_a_resumed_trial_stays_in_the_wider_precision(loud_weights: Path, data: DeviceData, tmp_path: Path) -> None:
    run = config(pretrained=str(loud_weights))
    run_trial(run, data, tmp_path / "whole", report=lambda report: None)
    epochs = trial_epochs(run, data, tmp_path / "parts")
    next(epochs)
    epochs.close()
    reports: list[TrialReport] = []
    run_trial(run, data, tmp_path / "parts", reports.append, resume=True)
    assert [report.metrics.epoch for report in reports] == [1, 2, 3]
    assert exact(tmp_path / "parts") == exact(tmp_path / "whole")
    assert len(read_events(tmp_path / "parts")) == 1


@pytest.mark.slow
def test_a_trial_that_stays_in_fp16_goes_on_as_if_it_had_not_stopped(data: DeviceData, tmp_path: Path) -> None:
    settings = config(effective_batch=8, epochs=2)

    def epochs(name: str) -> Generator[TrialReport]:
        return trial_epochs(settings, data, tmp_path / name, resume=True)

    list(epochs("whole"))
    stopped = epochs("stopped")
    next(stopped)
    stopped.close()
    list(epochs("stopped"))
    assert exact(tmp_path / "stopped") == exact(tmp_path / "whole")
    assert not read_events(tmp_path / "stopped")


def test_what_is_saved_after_a_good_epoch_is_the_trainers_state_then(data: DeviceData) -> None:
    labels = data.labels_N[data.indices("train")]
    trainer = build_trainer(config().trial, len(data.data.classes), labels, data.device)
    policy = PrecisionPolicy("fp16", data.device, lambda change: None)
    policy.epoch_was_good(trainer, 1)
    saved, now = (tree_flatten(state)[0] for state in (policy.good_state(trainer), trainer.state()))
    assert len(saved) == len(now) > 50
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(saved, now, strict=True))
    places = {value.data_ptr() for value in trainer.step.parameters}
    copies = {value.data_ptr() for value in saved if isinstance(value, Tensor)}
    assert not places & copies  # training on leaves them alone


def test_a_good_state_is_gone_back_to_by_a_network_with_layers_of_two_versions(data: DeviceData) -> None:
    """MNASNet loads no weights that have lost the versions of their layers, as these have on their way."""
    labels = data.labels_N[data.indices("train")]
    settings = config(model="mnasnet0_5", image_size=32).trial
    trainer, other = (build_trainer(settings, len(data.data.classes), labels, data.device) for _ in range(2))
    with torch.no_grad():
        trainer.step.parameters[0].mul_(2)
    policy = PrecisionPolicy("fp16", data.device, lambda change: None)
    policy.epoch_was_good(trainer, 1)
    other.load_state(policy.good_state(trainer))
    assert torch.equal(other.step.parameters[0], trainer.step.parameters[0])
