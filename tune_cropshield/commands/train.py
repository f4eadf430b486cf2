"""`train`: one configuration to its end."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from tune_cropshield.commands.paths import cache_dir
from tune_cropshield.config import RunConfig, load_config, validated
from tune_cropshield.errors import DivergedError, UserError
from tune_cropshield.records import CHECKPOINT, CONFIG, METRICS
from tune_cropshield.search.resources import find_device
from tune_cropshield.search.view import view_for


def run(args: argparse.Namespace) -> int:
    """Trains the network of --config and writes its files to --out."""
    config = _overridden(load_config(args.config), args)
    if not config.data.dir:
        raise UserError(f"{args.config} names no photographs: give --data DIR")
    out = args.out or Path("results/runs") / f"train-{time.strftime('%Y%m%d-%H%M%S')}"
    _check_folder(out, config, args.resume)
    device = find_device(args.device)
    import torch

    from tune_cropshield.data.dataset import DeviceData, open_data
    from tune_cropshield.trial import TrialReport, run_trial

    console = Console(soft_wrap=True, highlight=False)
    view = view_for(console)
    trial = config.trial
    with view.steps("decoding photographs") as progress:
        data = open_data(config.data, {trial.image_size, *trial.progressive_sizes.values()}, cache_dir(), progress)
    view.note(f"training {trial.model} on {device}: {len(data.split.train)} photographs, {len(data.classes)} classes, up to {trial.epochs} epochs")

    def report(done: TrialReport) -> None:
        metrics = done.metrics
        best = " (best)" if done.best_epoch == metrics.epoch else ""
        view.note(
            f"epoch {metrics.epoch:3}/{trial.epochs}  train_loss {metrics.train_loss:.4f}  val_loss {metrics.val_loss:.4f}  "
            f"val_acc {metrics.val_acc:.4f}{best}  {metrics.images_per_s:.0f} images/s  {metrics.epoch_s:.1f} s"
        )

    try:
        last = run_trial(config, DeviceData(data, torch.device(device)), out, report, resume=args.resume)
    except DivergedError as error:
        raise error from None
    view.note(f"best: val_acc {last.best_val_acc!r} in epoch {last.best_epoch}; files in {out}")
    return 0


def _overridden(config: RunConfig, args: argparse.Namespace) -> RunConfig:
    """Returns `config` with the command line's wishes over it."""
    values = config.model_dump()
    if args.data is not None:
        values["data"]["dir"] = str(args.data.absolute())
    if args.epochs is not None:
        values["trial"]["epochs"] = args.epochs
    return validated(RunConfig, values, str(args.config))


def _check_folder(out: Path, config: RunConfig, resume: bool) -> None:
    """Raises UserError when `out` cannot take this training."""
    if not resume:
        if (out / METRICS).exists() or (out / CHECKPOINT).exists():
            raise UserError(f"{out} already holds a training: go on with it (--resume) or give another folder (--out)")
        return
    if not (out / CONFIG).exists():
        raise UserError(f"{out} holds no training to go on with ({CONFIG} is missing)")
    before, now = load_config(out / CONFIG).trial.model_dump(), config.trial.model_dump()
    different = [f"{name} ({before[name]} then, {now[name]} now)" for name in now if before[name] != now[name]]
    if different:
        raise UserError(f"{out} was trained with other settings: {', '.join(different)}")
