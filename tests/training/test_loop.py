"""A whole trial on drawn leaves: it learns, repeats, resumes, and keeps the best epoch."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.errors import DivergedError, RunFailure
from tune_cropshield.outcome.trained import load_trained
from tune_cropshield.training.evaluate import Evaluator, split_batches
from tune_cropshield.training.loop import run_trial, trial_epochs
from tune_cropshield.training.metrics import METRIC_NAMES
from tune_cropshield.training.progress import TrialReport
from tune_cropshield.training.run_folder import RunFolder, read_digest, read_events, read_metrics

CPU = torch.device("cpu")
EXACT = [name for name in METRIC_NAMES if name not in ("images_per_s", "data_wait_s", "epoch_s")]


def config(leaves: Path, **trial: Any) -> RunConfig:
    settings = {
        "model": "tiny_cnn",
        "image_size": 32,
        "augment": "conservative",
        "schedule": "onecycle",
        "lr": 5e-3,
        "threads": 1,
        "epochs": 4,
    }
    return RunConfig(data=DataConfig(dir=str(leaves)), trial=TrialConfig.model_validate({**settings, **trial}))


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {24, 32}, shared_cache), CPU)


def exact(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without the timings."""
    return [{name: line[name] for name in EXACT} for line in read_metrics(folder)]


def train(leaves: Path, data: DeviceData, folder: Path, **trial: Any) -> TrialReport:
    return run_trial(config(leaves, **trial), data, folder, report=lambda report: None)


def test_a_trial_learns_and_writes_every_file(drawn_leaves: Path, data: DeviceData, tmp_path: Path) -> None:
    settings = {"epochs": 12, "augment": "none", "effective_batch": 16}
    last = train(drawn_leaves, data, tmp_path, **settings)
    assert last.best_val_acc >= 0.5  # four classes: chance is 0.25
    lines = read_metrics(tmp_path)
    assert [line["epoch"] for line in lines] == list(range(1, 13))
    assert lines[-1]["train_loss"] < 0.5 * lines[0]["train_loss"]
    assert tuple(lines[0]) == METRIC_NAMES
    assert load_config(tmp_path / "config.toml") == config(drawn_leaves, **settings)
    assert json.loads((tmp_path / "classes.json").read_text()) == list(data.data.classes)
    assert json.loads((tmp_path / "metrics.json").read_text()) == lines[last.best_epoch - 1]
    weights = load_file(tmp_path / "model.safetensors")
    assert (
        sum(tensor.numel() for name, tensor in weights.items() if "running" not in name and "num_batches" not in name)
        == 98_196
    )


def test_the_weights_kept_are_the_best_epochs_and_not_the_last(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    run = config(drawn_leaves, epochs=60, lr=0.02, schedule="constant", early_stopping=2)
    last = run_trial(run, data, tmp_path, report=lambda report: None)
    lines = read_metrics(tmp_path)
    accuracies = [line["val_acc"] for line in lines]
    assert last.best_val_acc == max(accuracies)
    assert last.best_epoch == accuracies.index(max(accuracies)) + 1 == len(lines) - 2
    model = load_trained(run.trial, len(data.data.classes), tmp_path / "model.safetensors", CPU)
    judged = Evaluator(model, len(data.data.classes), "fp32", CPU).evaluate(
        split_batches(run.trial, data, "val", torch.float32)
    )
    assert (judged.accuracy, judged.loss) == (max(accuracies), lines[last.best_epoch - 1]["val_loss"])
    assert judged.loss != lines[-1]["val_loss"]


def test_the_same_seed_gives_the_same_numbers_and_another_one_does_not(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(drawn_leaves, data, tmp_path / name, seed=seed, epochs=2, dropout=0.3, mixup=0.2)
    assert exact(tmp_path / "a") == exact(tmp_path / "b")
    assert exact(tmp_path / "a") != exact(tmp_path / "c")


def test_different_learning_rates_end_with_different_weights(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    for name, lr in (("a", 1e-3), ("b", 2e-3)):
        train(drawn_leaves, data, tmp_path / name, lr=lr, epochs=1)
    first, second = (load_file(tmp_path / name / "model.safetensors")["classifier.weight"] for name in ("a", "b"))
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "plateau", "plateau_patience": 0, "ema": 0.9},
        {"schedule": "onecycle", "optimizer": "sgd", "lr": 0.05, "dropout": 0.3, "cutmix": 1.0},
        {"schedule": "cosine", "precision": "bf16", "max_norm": 1.0, "micro_batch": 16, "accumulation": 2},
        {"sampling": "balanced", "loss": "focal", "mixup": 0.2, "progressive_sizes": {0: 24, 2: 32}},
    ],
    ids=["plateau-ema", "sgd-dropout-cutmix", "bf16-accumulation", "balanced-focal-mixup"],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    settings: dict[str, Any], drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    run = config(drawn_leaves, **settings)
    run_trial(run, data, tmp_path / "whole", report=lambda report: None)
    epochs = trial_epochs(run, data, tmp_path / "parts", checkpoint_every_s=1000)
    for _ in range(2):
        next(epochs)
    epochs.close()  # saves a checkpoint
    assert RunFolder(tmp_path / "parts").checkpoint()[0]["progress"]["metrics"]["epoch"] == 2
    run_trial(run, data, tmp_path / "parts", report=lambda report: None, resume=True)
    assert exact(tmp_path / "parts") == exact(tmp_path / "whole")
    whole, parts = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_epochs_after_the_last_checkpoint_are_trained_again_and_not_written_twice(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    run = config(drawn_leaves)
    killed = tmp_path / "killed"
    epochs = trial_epochs(run, data, tmp_path / "run", checkpoint_every_s=1000)
    next(epochs)
    epochs.close()
    epochs = trial_epochs(run, data, tmp_path / "run", resume=True, checkpoint_every_s=1000)
    assert [next(epochs).metrics.epoch for _ in range(2)] == [1, 2]  # the epoch that was known is reported again
    shutil.copytree(
        tmp_path / "run", killed
    )  # as a power cut would leave it: epoch 2 is in metrics.jsonl, but in no checkpoint
    epochs.close()
    assert [line["epoch"] for line in read_metrics(killed)] == [1, 2]
    run_trial(run, data, killed, report=lambda report: None, resume=True)
    assert [line["epoch"] for line in read_metrics(killed)] == [1, 2, 3, 4]
    accumulator = EventAccumulator(str(killed))
    accumulator.Reload()
    assert [event.step for event in accumulator.Scalars("validation/val_acc")] == [1, 2, 3, 4]


def test_one_that_is_stopped_where_it_may_be_goes_on_later_with_the_same_numbers(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    run = config(drawn_leaves, schedule="cosine", ema=0.9)
    run_trial(run, data, tmp_path / "whole", report=lambda report: None)
    epochs = trial_epochs(run, data, tmp_path / "run", checkpoint_every_s=1000, checkpoint_after=(2,))
    for _ in range(2):
        next(epochs)
    shutil.copytree(tmp_path / "run", tmp_path / "stopped")  # as it was reported: nobody has closed it
    epochs.close()
    assert RunFolder(tmp_path / "stopped").checkpoint()[0]["progress"]["metrics"]["epoch"] == 2
    run_trial(run, data, tmp_path / "stopped", report=lambda report: None, resume=True)
    assert exact(tmp_path / "stopped") == exact(tmp_path / "whole")
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)


def test_a_finished_run_resumed_reports_its_last_epoch_and_trains_nothing(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    last = train(drawn_leaves, data, tmp_path)
    reports: list[TrialReport] = []
    run_trial(config(drawn_leaves), data, tmp_path, reports.append, resume=True)
    assert reports == [last]


def test_tensorboard_reads_every_metric_under_its_own_name_in_groups(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    train(drawn_leaves, data, tmp_path, epochs=2)
    accumulator = EventAccumulator(str(tmp_path))
    accumulator.Reload()
    tags = [tag.split("/") for tag in accumulator.Tags()["scalars"]]
    of_the_best = {"best_epoch", "best_train_loss", "best_val_acc", "best_val_loss", "best_val_macro_f1"}
    of_the_best |= {"best_val_balanced_acc", "best_val_auc"}
    assert {name for _, name in tags} == of_the_best | {*METRIC_NAMES} - {"epoch"}
    assert {group for group, _ in tags} == {"validation", "training", "clipping", "speed"}
    written = [event.value for event in accumulator.Scalars("validation/val_loss")]
    assert written == pytest.approx([line["val_loss"] for line in read_metrics(tmp_path)])


def test_what_a_sample_looks_like_does_not_depend_on_the_micro_batch(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    """Without batch norm the whole training would be equal; with it, the first epoch's data and labels at least are."""
    from tune_cropshield.data.mixing import Mixing
    from tune_cropshield.data.windows import WindowSettings, training_windows

    seen = []
    for micro_batch in (32, 8):
        settings = WindowSettings(32, micro_batch, "aggressive", Mixing(0.2, 1.0), seed=0)
        windows = training_windows(
            data.feed(32), data.labels_N, data.indices("train"), settings, epoch=1, image_size=32
        )
        seen.append([torch.cat([batch.images() for batch in window.micro_batches]) for window in windows])
    assert [len(images) for images in seen[0]] == [32, 32, 32]
    for whole, parts in zip(*seen, strict=True):
        torch.testing.assert_close(whole, parts)


def test_a_ragged_last_window_is_trained_on(drawn_leaves: Path, data: DeviceData, tmp_path: Path) -> None:
    train(drawn_leaves, data, tmp_path, epochs=1, effective_batch=40)
    assert len(data.indices("train")) == 96
    assert read_metrics(tmp_path)[0]["updates"] == 3


def test_progressive_sizes_train_small_first_and_are_judged_at_the_last_size(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    last = train(drawn_leaves, data, tmp_path, epochs=3, progressive_sizes={0: 24, 2: 32})
    assert last.finished
    assert [config(drawn_leaves, progressive_sizes={0: 24, 2: 32}).trial.size_at(epoch) for epoch in range(3)] == [
        24,
        24,
        32,
    ]


def test_early_stopping_ends_after_so_many_epochs_without_a_better_accuracy(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    last = train(drawn_leaves, data, tmp_path, epochs=50, lr=1e-9, schedule="constant", early_stopping=3)
    assert last.finished
    assert last.metrics.epoch == last.best_epoch + 3


def test_a_loss_that_explodes_ends_the_trial_with_where_and_when(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    with pytest.raises(DivergedError, match=r"stopped being finite in epoch \d+, after \d+ updates") as caught:
        train(drawn_leaves, data, tmp_path, lr=1e30, optimizer="sgd", schedule="constant", warmup_epochs=0.0)
    assert caught.value.epoch >= 1
    assert math.isfinite(caught.value.grad_norm)


# Damage


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "both", "goes_on_after"), [(flip_a_byte, False, 2), (cut_short, False, 2), (flip_a_byte, True, 0)]
)
def test_a_damaged_checkpoint_is_told_and_training_goes_on_from_the_one_before(
    damage: Callable[[Path], None], both: bool, goes_on_after: int, drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    run_trial(config(drawn_leaves), data, tmp_path / "whole", report=lambda report: None)
    epochs = trial_epochs(config(drawn_leaves), data, tmp_path / "hurt", checkpoint_every_s=0)
    for _ in range(3):
        next(epochs)
    epochs.close()
    damage(tmp_path / "hurt" / "last.pt")
    if both:
        damage(tmp_path / "hurt" / "previous.pt")
    reports: list[TrialReport] = []
    run_trial(config(drawn_leaves), data, tmp_path / "hurt", reports.append, resume=True)
    assert reports[0].metrics.epoch == max(goes_on_after, 1)
    assert "last.pt is damaged" in reports[0].notes[0] and reports[0].notes[0].endswith(
        f": it continues after epoch {goes_on_after}"
    )
    (event,) = read_events(tmp_path / "hurt")
    assert (event["event"], event["goes_on_after_epoch"], len(event["reasons"])) == (
        "damaged checkpoint",
        goes_on_after,
        1 + both,
    )
    assert exact(tmp_path / "hurt") == exact(tmp_path / "whole")


def test_a_checkpoint_of_another_version_is_refused(drawn_leaves: Path, data: DeviceData, tmp_path: Path) -> None:
    torch.save({"version": 1}, tmp_path / "last.pt")
    with pytest.raises(RunFailure, match=r"last\.pt is a checkpoint of another version: this one reads version 4"):
        run_trial(config(drawn_leaves), data, tmp_path, resume=True)


def test_what_a_killed_writer_left_is_cleared_away(drawn_leaves: Path, data: DeviceData, tmp_path: Path) -> None:
    (tmp_path / ".last.pt.12345.tmp").write_bytes(b"half")
    train(drawn_leaves, data, tmp_path, epochs=1)
    assert not list(tmp_path.glob(".*"))


def test_the_digest_is_that_of_the_weights(drawn_leaves: Path, data: DeviceData, tmp_path: Path) -> None:
    train(drawn_leaves, data, tmp_path, epochs=1)
    digest = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    assert (tmp_path / "model.sha256").read_text() == f"{digest}  model.safetensors\n"
    preparation = json.loads((tmp_path / "preparation.json").read_text())
    assert (preparation["fit"], preparation["resize"], preparation["crop"]) == ("crop", 36, 32)
    assert read_digest(tmp_path) == digest


@pytest.mark.slow
def test_photographs_count_in_training_by_their_weights_and_in_validation_alike(
    drawn_leaves: Path, data: DeviceData, tmp_path: Path
) -> None:
    photographs, labels = data.data, data.data.store.labels
    for name, weights in (
        ("none", None),
        ("equal", torch.full((len(labels),), 5.0)),
        ("one class", torch.where(labels == 1, 1.0, 1e-6)),
    ):
        weighted = DeviceData(replace(photographs, weights_N=weights), data.device)
        train(drawn_leaves, weighted, tmp_path / name, epochs=3, augment="none", lr=1e-2)
    none, equal, one_class = (read_metrics(tmp_path / name) for name in ("none", "equal", "one class"))
    for line, other in zip(none, equal, strict=True):
        assert other["train_loss"] == pytest.approx(line["train_loss"], rel=1e-3)
        assert other["val_loss"] == pytest.approx(line["val_loss"], rel=1e-2)
    assert one_class[-1]["train_loss"] < 0.1 < none[-1]["train_loss"]  # only one class is learnt, and at once
    assert one_class[-1]["val_acc"] == 0.25 and one_class[-1]["val_loss"] > 1.0  # of four that validate alike
