"""`train`: one configuration to its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, strftime
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.arguments import (
    DEVICES,
    AnyColumns,
    AnyPath,
    DeviceChoice,
    Progress,
    check_choice,
    command_line,
    path_of,
    places_of,
    view_of,
)
from tune_cropshield.api.resume_training import note_own_files, resumed_training
from tune_cropshield.api.space import RUNS
from tune_cropshield.config.faults import overridden, validated
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import RunConfig, load_config
from tune_cropshield.config.toml_files import without_none
from tune_cropshield.config.units import describe_seconds, parse_duration
from tune_cropshield.device import find_device, num_cores
from tune_cropshield.errors import DivergedError, UserError
from tune_cropshield.files import check_apart, check_can_be_made, make_free_folder
from tune_cropshield.outcome import words
from tune_cropshield.outcome.one_answer import one_answer_line, pairs_of
from tune_cropshield.outcome.settings_in_words import fine_tuning
from tune_cropshield.outcome.trained import where_they_lie_now
from tune_cropshield.shell import command
from tune_cropshield.training.run_folder import CHECKPOINT, CONFIG, METRICS, WEIGHTS

if TYPE_CHECKING:  # PyTorch takes seconds to import: faulty arguments are told about before
    from tune_cropshield.data.dataset import LeafData
    from tune_cropshield.search.views.view import SearchView
    from tune_cropshield.training.progress import TrialReport


@dataclass(frozen=True)
class TrainResult:
    """A training that has ended.

    folder: config.toml, metrics.jsonl (a line per epoch), TensorBoard events and model.safetensors, the best epoch's
    weights. last: the last epoch's metrics by name. best_val_acc: of `best_epoch`, counted from 1.
    stopped_early: whether early stopping ended it. metric: what the best epoch was chosen by; best_value: its value.
    """

    folder: Path
    last: dict[str, float | int]
    best_epoch: int
    best_val_acc: float
    stopped_early: bool
    metric: str = "val_acc"
    best_value: float = math.nan

    @property
    def weights(self) -> Path:
        """The best epoch's weights, which load in plain torchvision."""
        return self.folder / WEIGHTS


def train(
    config: AnyPath | RunConfig | Mapping[str, Any],
    *,
    data: AnyPath | None = None,
    labels: AnyPath | None = None,
    columns: AnyColumns | None = None,
    train: AnyPath | None = None,
    val: AnyPath | None = None,
    test: AnyPath | None = None,
    epochs: int | None = None,
    time: str | None = None,
    early_stopping: int | None = None,
    metric: str | None = None,
    out: AnyPath | None = None,
    resume: bool = False,
    profile: bool = False,
    device: DeviceChoice = "auto",
    progress: Progress = True,
) -> TrainResult:
    """Trains one network to its end.

    Args:
        config: The path of a config.toml, its tables as a dict, or a RunConfig like `results.best.config`.
        data: The folder of photographs, instead of the configuration's.
        labels, columns, train, val, test: Where photographs and labels come from, as in `tune_cropshield.search`.
        epochs: Instead of the configuration's.
        time: Train for this time, like "20m", on all cores: the number of epochs, and with it the schedule, is fitted
            to it while it runs. With `resume`, the time of all starts together.
        early_stopping: Stop after so many epochs without a better `metric`.
        metric: What decides which epoch is the best: "val_acc", "val_macro_f1", "val_balanced_acc", "val_loss",
            "val_auc", or your own as "file.py:name".
        out: The folder for its files; left out, results/runs/train-TIME.
        resume: Continue from the last checkpoint in `out`; left out, of the last training below results/runs with the
            same settings. The arguments are those that it was begun with; `data` may be where the photographs have
            moved.
        profile: Write a trace of the second epoch, and tell where its time goes.
        device: "cpu", "cuda" or "auto".
        progress: Shown while it trains; see `tune_cropshield.search`.

    Raises:
        ConfigError: With every fault of the configuration and the arguments.
        UserError: The photographs cannot be trained on, or `out` cannot take this training.
        DivergedError: The loss or the gradients stopped being finite.
    """
    began = monotonic()
    check_choice("--device", device, DEVICES)
    seconds = _seconds(time, epochs, profile)
    places = places_of({"data": data, "labels": labels, "columns": columns, "train": train, "val": val, "test": test})
    run = _config(config, places, {"epochs": epochs, "early_stopping": early_stopping, "metric": metric})
    if not run.data.given and not resume:
        name = config if isinstance(config, str | Path) else "the configuration"
        raise UserError(f"{name} names no photographs: give --data DIR")
    if profile and resume:
        raise UserError("--profile traces a training from its start: leave out --resume")
    folder = path_of(out, "--out") if out is not None else RUNS / f"train-{strftime('%Y%m%d-%H%M%S')}"
    if seconds is not None:
        run = run.model_copy(update={"trial": run.trial.model_copy(update={"threads": num_cores()})})
    view = view_of(progress)
    if resume:
        resumed = resumed_training(
            folder if out is not None else None, run, view, moved=bool(places), fitted=seconds is not None
        )
        folder, run = resumed.folder, resumed.run
        check_apart(run.data.folders, cache_dir(), folder)
        view.note(resumed.note)
    else:
        _check_new(folder, out is not None, run)
    deadline = began + seconds if seconds is not None else None
    flags = command_line("train", time=time, device=None if device == "auto" else device)[1:]
    from tune_cropshield.training.loss_checks import check_loss
    from tune_cropshield.training.model_checks import check_network

    check_network(run.trial)
    check_loss(run.trial)
    named = resume or out is not None
    return _train(run, folder, named, resume, profile, find_device(device), view, began, deadline, flags)


def _seconds(time: str | None, epochs: int | None, profile: bool) -> float | None:
    """Returns the time to train for; None where none is given. Raises UserError for what cannot go with it."""
    if time is None:
        return None
    if epochs is not None:
        raise UserError("--time fits the number of epochs to the time: leave out --epochs, or --time")
    if profile:
        raise UserError("--profile traces two epochs of a training whose length is known: leave out --time")
    return parse_duration(time)


def _config(
    config: AnyPath | RunConfig | Mapping[str, Any], places: Mapping[str, Any], wishes: Mapping[str, int | str | None]
) -> RunConfig:
    """Returns the configuration with what was asked for over it."""
    wished = {name: value for name, value in wishes.items() if value is not None}
    over: dict[str, dict[str, Any]] = {"data": dict(places), "trial": wished}
    if isinstance(config, str | Path):
        file = path_of(config, "--config")
        found = load_config(file, over)
        return found if places or file.name != CONFIG else where_they_lie_now(found, file.parent)
    if not isinstance(config, RunConfig | Mapping):
        raise UserError(f"--config: must be a path, a RunConfig or a dict, but got {config!r}")
    tables = config.model_dump() if isinstance(config, RunConfig) else dict(config)
    return validated(RunConfig, *overridden(without_none(tables), over, "config"))


def _train(
    config: RunConfig,
    out: Path,
    named: bool,
    resume: bool,
    profile: bool,
    device: str,
    view: SearchView,
    began: float,
    deadline: float | None,
    flags: Sequence[str],
) -> TrainResult:
    """Opens the photographs, takes the folder, and trains.

    Args:
        out: its folder, or where it is not `named` by the user, as far as it is free.
        began: of time.monotonic, when the training was asked for.
        deadline: of time.monotonic, to which the number of epochs is fitted; None trains as many as the configuration
            says.
        flags: those that a command that goes on with it needs.
    """
    from tune_cropshield.data.dataset import open_data
    from tune_cropshield.data.remarks import remarks, to_beat
    from tune_cropshield.data.split_file import read_split
    from tune_cropshield.search.folder import locked
    from tune_cropshield.training.fitted import trained_s
    from tune_cropshield.training.loss_checks import check_loss
    from tune_cropshield.training.model_checks import check_pretrained
    from tune_cropshield.training.own_metric import check_own_metric

    trial = config.trial
    with ExitStack() as stack:
        if resume:  # before anything that takes long: others see that it runs
            stack.enter_context(locked(out, "training"))
        with view.steps("decoding photographs") as progress:
            sizes, kept = {trial.image_size, *trial.progressive_sizes.values()}, read_split(out) if resume else None
            data = open_data(config.data, sizes, cache_dir(), progress, kept=kept)
        check_pretrained(trial, len(data.classes))
        check_loss(trial, len(data.classes))
        check_own_metric(trial.metric, data.store.labels[data.split.val].tolist(), len(data.classes))
        for line in remarks(data, config.data.folds):
            view.note(line)
        if deadline is not None and resume:
            used, total = trained_s(out), deadline - began
            told = f"time: {describe_seconds(total)} in all, {describe_seconds(used)} used"
            if total <= used:
                raise UserError(f"{out} has used up this time ({told}): give a longer one (--time)")
            view.note(f"{told}, {describe_seconds(total - used)} left")
            deadline -= used
        length = f"up to {words.counted(trial.epochs, 'epoch')}"
        if deadline is not None:
            length = f"for {describe_seconds(deadline - monotonic())} on {words.counted(num_cores(), 'core')}"
        view.note(
            f"training {trial.model} on {device}: {words.counted(len(data.split.train), 'photograph')}, "
            f"{len(data.classes)} classes, {length}"
        )
        if apart := fine_tuning(trial.model_dump()):
            view.note(apart)
        view.note(to_beat(data.split, data.classes, data.store.labels.tolist()))
        if not named:
            out = make_free_folder(out)
        out.mkdir(parents=True, exist_ok=True)
        if not resume:
            stack.enter_context(locked(out, "training"))
            if named:
                _check_new(out, named, config)  # another process may have begun one meanwhile
        return _train_in(out, config, data, resume, profile, device, view, deadline, flags)


def _train_in(
    out: Path,
    config: RunConfig,
    data: LeafData,
    resume: bool,
    profile: bool,
    device: str,
    view: SearchView,
    deadline: float | None,
    flags: Sequence[str],
) -> TrainResult:
    """Trains in the folder `out`, which this process holds. The other arguments are those of `_train`."""
    import torch

    from tune_cropshield.data.dataset import DeviceData
    from tune_cropshield.data.left_out import write_left_out
    from tune_cropshield.data.split import VAL
    from tune_cropshield.data.split_file import (
        SPLIT_TABLE,
        read_split,
        split_rows,
        stored_now,
        what_changed,
        write_split,
    )
    from tune_cropshield.training.fitted import train_until
    from tune_cropshield.training.loop import run_trial
    from tune_cropshield.training.orderly_end import OrderlyEnd, orderly_end
    from tune_cropshield.training.predictions import PREDICTIONS, read_judged

    trial = config.trial
    if resume and (changed := what_changed(read_split(out) or split_rows(data), stored_now(data.store))):
        raise UserError(
            f"{data.store.root}: since this training was begun, {changed}. Put them back as they were, or start a new "
            "training with another --out"
        )
    if not (out / SPLIT_TABLE).exists():
        write_split(out, data)
    if not resume:
        note_own_files(out, config)

    traced = None
    if profile:
        from tune_cropshield.outcome.profile import EpochProfile

        if device == "cuda":  # what runs inside a captured graph has no names
            config = config.model_copy(update={"trial": trial.model_copy(update={"cuda_graphs": False})})
        traced = EpochProfile(out, trial.epochs, cuda=device == "cuda")

    def show(done: TrialReport, epochs: int, end: OrderlyEnd) -> None:
        metrics = done.metrics
        if traced is not None:
            traced.epoch_ended(metrics.epoch)
        goal = metrics.goal
        own = "" if goal.name in ("val_acc", "val_loss") else f"  {goal.named(goal.value(metrics.as_dict()))}"
        best = " (best)" if done.best_epoch == metrics.epoch else ""
        progress(metrics.epoch, epochs)
        view.note(
            f"epoch {metrics.epoch:3}/{epochs}  train_loss {metrics.train_loss:.4f}  "
            f"val_loss {metrics.val_loss:.4f}  val_acc {words.accuracy(metrics.val_acc)}{own}{best}  "
            f"{metrics.images_per_s:.0f} images/s  {metrics.epoch_s:.1f} s"
        )
        if not done.finished:
            end.epoch_ended(metrics.epoch_s)

    try:
        with view.steps(f"files in {out}") as progress, orderly_end(view.note) as end:
            write_left_out(out, data.left_out)
            on_device = DeviceData(data, torch.device(device))
            if deadline is None:
                planned = trial.epochs
                last = run_trial(config, on_device, out, lambda done: show(done, planned, end), resume=resume)
            else:

                def report(done: TrialReport, epochs: int) -> None:
                    show(done, epochs, end)

                last = train_until(deadline, config, on_device, out, report, resume=resume)
                trial = load_config(out / CONFIG).trial
    except DivergedError as error:
        raise error from None
    except KeyboardInterrupt:
        view.note(f"To continue:  {command('train', '--config', out / CONFIG, '--out', out, '--resume', *flags)}")
        raise
    if traced is not None:
        from tune_cropshield.outcome.profile import TRACE

        for line in traced.table():
            view.note(line)
        eager = " (steps eager, not as CUDA graphs)" if device == "cuda" else ""
        view.note(f"trace, for ui.perfetto.dev: {out / TRACE}{eager}")
    stopped_early, goal = last.metrics.epoch < trial.epochs, last.metrics.goal
    if stopped_early:
        view.note(f"ended early: no better {goal.name} in {words.counted(trial.early_stopping, 'epoch')}")
    ended_with = goal.value(last.metrics.as_dict())
    lines = [
        f"best: {words.named_values(goal, last.best)} in epoch {last.best_epoch}, the last one (epoch "
        f"{last.metrics.epoch}) has {goal.text(ended_with)}",
        f"the best epoch's weights: {out / WEIGHTS}",
    ]
    if (beside := one_answer_line(pairs_of(read_judged(out / PREDICTIONS) or []), VAL)) is not None:
        lines.insert(1, beside)
    view.result(lines, {})
    return TrainResult(
        out, last.metrics.as_dict(), last.best_epoch, last.best_val_acc, stopped_early, goal.name, last.best_value
    )


def _check_new(out: Path, named: bool, config: RunConfig) -> None:
    """Raises UserError when `out` cannot take a new training. One that is not `named` by the user may be taken."""
    check_apart(config.data.folders, cache_dir(), out)
    check_can_be_made(out, "--out")
    if not named:
        return
    if (out / METRICS).exists() or (out / CHECKPOINT).exists():
        raise UserError(f"{out} already contains a training: continue it (--resume) or give another folder (--out)")
    from tune_cropshield.search.folder import LOCK

    if out.exists() and any(path.name != LOCK for path in out.iterdir()):  # its config.toml might be overwritten
        raise UserError(f"{out} exists and is not an empty folder: give another one (--out)")
