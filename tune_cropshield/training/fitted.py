"""A training whose number of epochs is fitted to a time, while it runs.

How long an epoch takes is known only once some have been trained, and it changes: a laptop gets hot, another program
takes a core. So the length is looked at again after longer and longer times at first, and after half of what is left
towards the end. Where another number of epochs fits, the training goes on from a checkpoint with a schedule of that
length.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

from tune_cropshield.config.settings import MOST_EPOCHS, RunConfig, load_config
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.data.windows import training_windows
from tune_cropshield.files import sync_tree
from tune_cropshield.training.build import build_trainer, window_settings
from tune_cropshield.training.clock import PARTS, read_times
from tune_cropshield.training.loop import trial_epochs
from tune_cropshield.training.precision import DTYPES
from tune_cropshield.training.progress import TrialReport
from tune_cropshield.training.run_folder import CHECKPOINT, CONFIG, read_metrics

TIMED_S = 1.0  # of updates, to tell how long an epoch will take
CHANGE_FROM = 0.01  # a length that differs by less is kept
FORWARD_ONLY = 1 / 3  # of the time of a training step: what an image costs without gradients of the backbone


def epochs_that_fit(done: int, epoch_s: float, left_s: float, head_alone: float = 0.0) -> int:
    """Returns how many epochs a training has in all that has done `done` of them; at least one.

    Args:
        done: epochs.
        epoch_s: seconds that an epoch of the whole network takes.
        left_s: the seconds left.
        head_alone: in what share of all epochs the head trains alone, if it still does; each takes FORWARD_ONLY.
    """
    left = max(left_s, 0.0) / epoch_s
    if head_alone:
        fitting = int((left + done * FORWARD_ONLY) / (1 - head_alone + head_alone * FORWARD_ONLY))
    else:
        fitting = done + int(left)
    return min(max(fitting, done, 1), MOST_EPOCHS)


class LengthFitting:
    """Says after each epoch how many epochs fit into what is left until `deadline`, by the epochs since the last look.

    The first look is after the first epoch. The next one follows when as much time has passed as before it, or half of
    the time or of the epochs that were left, whichever comes first.

    Args:
        began, deadline: times of the clock that `epoch_ended` is told.
        head_alone: in what share of all epochs the head trains alone.
    """

    def __init__(self, began: float, deadline: float, head_alone: float = 0.0) -> None:
        self._began, self._deadline, self._head_alone = began, deadline, head_alone
        self._looked_at = self._next_look = began
        self._next_look_after = 0  # epochs
        self._epochs = 0.0  # of the whole network, since the last look; one of the head alone is a part of one

    def epoch_ended(self, done: int, planned: int, now: float, unfreeze_epochs: int = 0) -> int:
        """Returns how many epochs the training is to have in all.

        Args:
            done: how many it has had, those before `began` included.
            planned: how many it was to have so far.
            unfreeze_epochs: in how many of these the head trains alone.
        """
        self._epochs += FORWARD_ONLY if done <= unfreeze_epochs else 1
        left_s = self._deadline - now
        if left_s > 0 and now < self._next_look and done < self._next_look_after:
            return planned
        head_alone = self._head_alone if done < unfreeze_epochs else 0.0
        fitting = epochs_that_fit(done, (now - self._looked_at) / self._epochs, left_s, head_alone)
        self._looked_at, self._epochs = now, 0.0
        self._next_look = now + min(now - self._began, left_s / 2)
        wanted = fitting if abs(fitting - planned) >= max(CHANGE_FROM * planned, 1) else planned
        self._next_look_after = done + max((wanted - done) // 2, 1)
        return wanted


def train_until(
    deadline: float,
    config: RunConfig,
    data: DeviceData,
    folder: Path,
    report: Callable[[TrialReport, int], object],
    *,
    resume: bool = False,
    memory_mib: float | None = None,
) -> TrialReport:
    """Trains one network until `deadline` (of time.monotonic) and returns the last report.

    It ends with an epoch, by up to one epoch before the deadline; one epoch is trained in any case. config.toml in
    `folder` says how many epochs it has become. Arguments and errors are those of `trial_epochs`.

    Args:
        config: its number of epochs, and what follows from that (see `TrialConfig.of_length`), is only where the
            fitting begins; with `resume`, what stands in the folder's config.toml is.
        report: is called after each epoch, with the number of epochs that are planned now.
    """
    trial = config.trial
    fitting = LengthFitting(time.monotonic(), deadline, trial.unfreeze_epochs / trial.epochs)
    unfrozen: dict[str, int] = {}  # unfreeze_epochs, once the whole network trains: it is not frozen again
    if resume and (folder / CONFIG).exists():
        begun = load_config(folder / CONFIG).trial
        if len(read_metrics(folder)) > begun.unfreeze_epochs:
            unfrozen = {"unfreeze_epochs": begun.unfreeze_epochs}
        trial = trial.of_length(begun.epochs).model_copy(update=unfrozen)
    told_again = resume and (folder / CHECKPOINT).exists()  # the checkpoint's epoch is reported first
    while True:
        wanted = planned = trial.epochs
        run = config.model_copy(update={"trial": trial})
        with closing(trial_epochs(run, data, folder, resume=resume, memory_mib=memory_mib)) as epochs:
            for last in epochs:
                done, now = last.metrics.epoch, time.monotonic()
                if told_again and done == planned:  # it had come to its end, and may have got more time since
                    wanted = epochs_that_fit(done, last.metrics.epoch_s, deadline - now)
                elif not told_again:
                    report(last, planned)
                    if done > trial.unfreeze_epochs:
                        unfrozen = {"unfreeze_epochs": trial.unfreeze_epochs}
                    if done == planned or not last.finished:  # else early stopping has ended it
                        wanted = fitting.epoch_ended(done, planned, now, trial.unfreeze_epochs)
                told_again = False
                if wanted != planned:
                    break
        if wanted == planned:
            sync_tree(folder)
            return last
        trial = config.trial.of_length(wanted).model_copy(update=unfrozen)
        resume, told_again = True, True
        if data.device.type == "cuda":
            gc.collect()  # a trainer's parts refer to each other, and the next one takes as much memory again


def timed_epoch_s(config: RunConfig, data: DeviceData) -> float:
    """Returns about how long an epoch would take, from a few updates that are made now and forgotten.

    It takes a second or two. The first update, which prepares much, does not count where there is another.
    """
    trial, data = config.trial, data.as_said(config.data)
    trial = trial.model_copy(update={"unfreeze_epochs": 0})  # most epochs train the whole network
    if trial.threads is not None:
        torch.set_num_threads(trial.threads)
    size, indices = trial.size_at(0), data.indices("train")
    trainer = build_trainer(trial, len(data.data.classes), data.labels_N[indices].cpu(), data.device)
    settings = window_settings(trial, trial.pair[0], DTYPES[trainer.step.precision])
    trainer.step.model.train()
    trainer.step.log.start()
    started, images = time.perf_counter(), 0
    of_epoch = training_windows(data.feed(size), data.labels_N, indices, settings, 0, size, 0, data.weights_N)
    with closing(of_epoch) as windows:
        for number, window in enumerate(windows):
            if number == 1:
                started, images = time.perf_counter(), 0
            trainer.step.train_window(window)
            images += window.num_samples
            if number and time.perf_counter() - started >= TIMED_S:
                break
    validated = len(data.indices("val")) * FORWARD_ONLY
    return (time.perf_counter() - started) / images * (len(indices) + validated)


def trained_s(folder: Path) -> float:
    """Returns the seconds that the training in `folder` has taken so far, in all its starts; 0 where there is none."""
    return sum(float(line[part]) for line in read_times(folder) for part in PARTS)
