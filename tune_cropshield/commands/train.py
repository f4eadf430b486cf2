"""`train`: one configuration to its end."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from rich.console import Console

from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import RunConfig, load_config
from tune_cropshield.device import find_device
from tune_cropshield.errors import DivergedError, UserError
from tune_cropshield.files import check_can_be_made
from tune_cropshield.search.views.choose import view_for
from tune_cropshield.training.model_checks import check_image_sizes, check_pretrained
from tune_cropshield.training.run_folder import CHECKPOINT, CONFIG, METRICS, WEIGHTS


def run(args: argparse.Namespace) -> int:
    """Trains the network of --config and writes its files to --out."""
    data_table = {"dir": str(args.data.absolute())} if args.data is not None else {}
    wishes = {name: getattr(args, name) for name in ("epochs", "early_stopping") if getattr(args, name) is not None}
    config = load_config(args.config, {"data": data_table, "trial": wishes})
    if not config.data.dir:
        raise UserError(f"{args.config} names no photographs: give --data DIR")
    if args.resume and args.out is None:
        raise UserError("--resume needs --out: the folder of the training to go on with")
    if args.profile and args.resume:
        raise UserError("--profile traces a training from its start: leave out --resume")
    out = args.out or Path("results/runs") / f"train-{time.strftime('%Y%m%d-%H%M%S')}"
    _check_folder(out, config, args.resume)
    check_image_sizes(config.trial)
    device = find_device(args.device)
    import torch

    from tune_cropshield.data.dataset import DeviceData, open_data
    from tune_cropshield.training.loop import run_trial
    from tune_cropshield.training.progress import TrialReport

    view = view_for(Console(soft_wrap=True, highlight=False))
    trial = config.trial
    with view.steps("decoding photographs") as progress:
        data = open_data(config.data, {trial.image_size, *trial.progressive_sizes.values()}, cache_dir(), progress)
    check_pretrained(trial, len(data.classes))
    view.note(
        f"training {trial.model} on {device}: {len(data.split.train)} photographs, {len(data.classes)} classes, "
        f"up to {trial.epochs} epochs"
    )

    profile = None
    if args.profile:
        from tune_cropshield.outcome.profile import TRACE, EpochProfile

        if device == "cuda":  # what runs inside a captured graph has no names
            config = config.model_copy(update={"trial": trial.model_copy(update={"cuda_graphs": False})})
        profile = EpochProfile(out, trial.epochs, cuda=device == "cuda")

    def report(done: TrialReport) -> None:
        metrics = done.metrics
        if profile is not None:
            profile.epoch_ended(metrics.epoch)
        best = " (best)" if done.best_epoch == metrics.epoch else ""
        progress(metrics.epoch, trial.epochs)
        view.note(
            f"epoch {metrics.epoch:3}/{trial.epochs}  train_loss {metrics.train_loss:.4f}  val_loss "
            f"{metrics.val_loss:.4f}  "
            f"val_acc {metrics.val_acc:.4f}{best}  {metrics.images_per_s:.0f} images/s  {metrics.epoch_s:.1f} s"
        )

    try:
        with view.steps(f"files in {out}") as progress:
            last = run_trial(config, DeviceData(data, torch.device(device)), out, report, resume=args.resume)
    except DivergedError as error:
        raise error from None
    except KeyboardInterrupt:
        view.note(f"go on: the same command with --out {out} --resume")
        raise
    if profile is not None:
        for line in profile.table():
            view.note(line)
        view.note(
            f"trace, for ui.perfetto.dev: {out / TRACE}"
            + (" (steps eager, not as CUDA graphs)" if device == "cuda" else "")
        )
    if last.metrics.epoch < trial.epochs:
        view.note(f"ended early: no better val_acc in {trial.early_stopping} epochs")
    view.result(
        [
            (
                f"best: val_acc {last.best_val_acc!r} in epoch {last.best_epoch}, the last one (epoch "
                f"{last.metrics.epoch}) has {last.metrics.val_acc!r}"
            ),
            f"the best epoch's weights: {out / WEIGHTS}",
        ],
        {},
    )
    return 0


def _check_folder(out: Path, config: RunConfig, resume: bool) -> None:
    """Raises UserError when `out` cannot take this training."""
    if not resume:
        if (out / METRICS).exists() or (out / CHECKPOINT).exists():
            raise UserError(f"{out} already holds a training: go on with it (--resume) or give another folder (--out)")
        check_can_be_made(out, "--out")
        if out.exists() and any(out.iterdir()):  # its config.toml or weights might be overwritten
            raise UserError(f"{out} exists and is no empty folder: give another one (--out)")
        return
    for name in (CONFIG, METRICS):
        if not (out / name).exists():
            raise UserError(f"{out} holds no training to go on with ({name} is missing)")
    before, now = _settings(load_config(out / CONFIG)), _settings(config)
    different = [f"{name} ({before[name]} then, {now[name]} now)" for name in now if before[name] != now[name]]
    if different:
        raise UserError(f"{out} was trained with other settings: {', '.join(different)}")


def _settings(config: RunConfig) -> dict[str, object]:
    """Returns all that must not change when a training goes on; the photographs may have moved."""
    return {**config.data.model_dump(exclude={"dir"}), **config.trial.model_dump()}
