"""How many epochs a training gets that is fitted to a time, and that it keeps to it."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
import torch

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.training.fitted import LengthFitting, epochs_that_fit, train_until, trained_s
from tune_cropshield.training.run_folder import read_metrics


def test_only_whole_epochs_fit_and_what_is_done_is_never_taken_back() -> None:
    assert epochs_that_fit(done=3, epoch_s=10.0, left_s=49.9) == 7
    assert epochs_that_fit(done=3, epoch_s=10.0, left_s=-5.0) == 3
    assert epochs_that_fit(done=0, epoch_s=10.0, left_s=0.0) == 1
    assert epochs_that_fit(done=3, epoch_s=0.001, left_s=1e6) == 100_000  # config.toml takes no more


def test_epochs_of_the_head_alone_take_a_third() -> None:
    # half of 12 epochs take 10 s each, half 30 s: 240 s
    assert epochs_that_fit(done=0, epoch_s=30.0, left_s=240.1, head_alone=0.5) == 12
    assert epochs_that_fit(done=2, epoch_s=30.0, left_s=220.1, head_alone=0.5) == 12
    assert epochs_that_fit(done=2, epoch_s=30.0, left_s=-1.0, head_alone=0.5) == 2


def played(seconds: float, epoch_s: list[float], planned: int) -> tuple[int, float, int]:
    """Returns how many epochs were trained, when they ended, and how often the length was changed."""
    fitting, now, done, changes = LengthFitting(100.0, 100.0 + seconds), 100.0, 0, 0
    while done < planned:
        now += epoch_s[done]
        done += 1
        wanted = fitting.epoch_ended(done, planned, now)
        changes += wanted != planned
        planned = wanted
    return done, now - 100.0, changes


def test_a_steady_training_is_given_the_epochs_that_fit() -> None:
    assert played(600.0, [1.5] * 1000, planned=8) == (400, 600.0, 1)


def test_a_first_guess_that_is_much_too_long_is_cut_at_the_first_look() -> None:
    assert played(60.0, [10.0] * 1000, planned=500) == (6, 60.0, 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_time_is_kept_within_three_percent_where_the_first_epochs_tell_little_and_the_machine_slows_down(
    seed: int,
) -> None:
    chance = random.Random(seed)
    epochs = [6.0, *(chance.uniform(0.8, 1.2) for _ in range(150)), *(chance.uniform(1.4, 1.8) for _ in range(1000))]

    done, ended, changes = played(600.0, epochs, planned=8)

    assert 582.0 <= ended <= 602.0
    assert 400 < done < 480
    assert changes <= 15


def test_a_first_epoch_that_takes_as_long_as_twenty_later_ones_does_not_end_a_training_before_its_time() -> None:
    assert played(40.0, [10.0] + [0.5] * 1000, planned=2)[:2] == (61, 40.0)
    assert played(40.0, [19.0] + [0.5] * 1000, planned=2)[:2] == (43, 40.0)


def test_an_epoch_longer_than_the_time_is_trained_once() -> None:
    assert played(60.0, [100.0] * 10, planned=25) == (1, 100.0, 1)


@pytest.mark.parametrize(("first", "least_frozen"), [(1.0, 20), (20.0, 1)])  # a slow first epoch shortens the plan
def test_a_training_that_begins_with_the_head_alone_keeps_the_time(first: float, least_frozen: int) -> None:
    """Epochs of 1 s, then of 3 s: 23 and 92 of them take 299 s, a fifth and four fifths."""
    settings = TrialConfig(epochs=10, unfreeze_epochs=2)
    fitting, trial, now, done, frozen = LengthFitting(0.0, 300.0, 2 / 10), settings, 0.0, 0, 0
    while done < trial.epochs:
        alone = done < trial.unfreeze_epochs
        now += first if done == 0 else 1.0 if alone else 3.0
        done, frozen = done + 1, frozen + alone
        wanted = fitting.epoch_ended(done, trial.epochs, now, trial.unfreeze_epochs)
        trial = settings.of_length(wanted).model_copy(
            update={} if alone else {"unfreeze_epochs": trial.unfreeze_epochs}
        )
    assert 294.0 <= now <= 303.0
    assert least_frozen <= frozen <= 26
    assert done >= 92


@pytest.mark.slow
def test_a_network_that_was_unfrozen_is_not_frozen_again_where_its_training_gets_more_time(
    drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    config = RunConfig(
        data=DataConfig(dir=str(drawn_leaves)),
        trial=TrialConfig(model="tiny_cnn", image_size=32, epochs=4, unfreeze_epochs=2, augment="none", threads=1),
    )
    data = DeviceData(open_data(config.data, {32}, shared_cache), torch.device("cpu"))

    def trained(seconds: float, resume: bool) -> TrialConfig:
        train_until(time.monotonic() + seconds, config, data, tmp_path, lambda report, epochs: None, resume=resume)
        return load_config(tmp_path / "config.toml").trial

    short = trained(3.0, resume=False)
    assert 1 <= short.unfreeze_epochs < short.epochs
    longer = trained(3.0, resume=True)
    assert longer.epochs > short.epochs
    assert longer.unfreeze_epochs == short.unfreeze_epochs


def test_what_is_counted_in_epochs_is_stretched_with_the_training() -> None:
    trial = TrialConfig(epochs=20, schedule="step", step_epochs=6, progressive_sizes={10: 256}, warmup_epochs=2.0)

    longer, shorter = trial.of_length(80), trial.of_length(10)

    assert (longer.epochs, longer.step_epochs, longer.progressive_sizes, longer.warmup_epochs) == (80, 24, {40: 256}, 2)
    assert (shorter.epochs, shorter.step_epochs, shorter.progressive_sizes) == (10, 3, {5: 256})
    assert shorter.warmup_epochs == 1.0
    assert longer.model_copy(update={"epochs": 20, "step_epochs": 6, "progressive_sizes": {10: 256}}) == trial


@pytest.mark.slow
def test_a_training_ends_in_time_with_the_schedule_at_its_end_and_goes_on_where_it_stopped(
    drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    config = RunConfig(
        data=DataConfig(dir=str(drawn_leaves)),
        trial=TrialConfig(model="tiny_cnn", image_size=32, epochs=2, schedule="cosine", augment="none", threads=1),
    )
    data, planned = DeviceData(open_data(config.data, {32}, shared_cache), torch.device("cpu")), []
    began = time.monotonic()

    train_until(began + 10.0, config, data, tmp_path / "run", lambda report, epochs: planned.append(epochs))

    took, lines = time.monotonic() - began, read_metrics(tmp_path / "run")
    trial = load_config(tmp_path / "run" / "config.toml").trial
    assert took == pytest.approx(10.0, abs=1.0)
    assert [line["epoch"] for line in lines] == list(range(1, trial.epochs + 1))
    assert planned[0] == 2 and planned[-1] == trial.epochs == len(planned) > 10
    assert lines[-1]["lr"] < 0.02 * max(line["lr"] for line in lines)
    assert trained_s(tmp_path / "run") == pytest.approx(took, abs=1.0)

    train_until(time.monotonic() + 3.0, config, data, tmp_path / "run", lambda report, epochs: None, resume=True)
    assert len(read_metrics(tmp_path / "run")) > len(lines)  # it has got more time
