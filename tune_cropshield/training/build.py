"""Settings -> a trainer, ready for its first epoch."""

from __future__ import annotations

import ctypes
import sys

import torch
from torch import Tensor

from tune_cropshield.config import registry
from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.data.mixing import Mixing
from tune_cropshield.data.preparation import normalisation_of
from tune_cropshield.data.windows import WindowSettings, num_windows
from tune_cropshield.training.clipping import chosen_clipping
from tune_cropshield.training.depth import lr_shares
from tune_cropshield.training.ema import WeightAverage
from tune_cropshield.training.graphs import CudaGraphs, Eager, Runner
from tune_cropshield.training.losses import SampleLoss, class_weights
from tune_cropshield.training.models import build_model, correct_momentum, freeze, head_of
from tune_cropshield.training.optimizers import build_optimizer
from tune_cropshield.training.precision import gradient_scaler, resolve_precision
from tune_cropshield.training.schedules import Plateau, lr_factors, momentum_factors
from tune_cropshield.training.step import WindowStep, seed_everything
from tune_cropshield.training.trainer import Trainer
from tune_cropshield.training.update_log import UpdateLog


def build_trainer(trial: TrialConfig, num_classes: int, train_labels: Tensor, device: torch.device) -> Trainer:
    """Returns the trainer that `trial` describes, on `device`, seeded with trial.seed.

    The same settings give the same first weights.

    Args:
        train_labels: int64, the labels of the training split; their number gives the updates per epoch.
    """
    if device.type == "cpu":
        keep_freed_memory()
    seed_everything(trial.seed)
    _, accumulation = trial.pair
    updates_per_epoch = num_windows(len(train_labels), trial.effective_batch)
    model = build_model(
        trial.model,
        num_classes,
        trial.pretrained,
        trial.freeze_backbone,
        trial.dropout,
        head=trial.head,
        needs_head=trial.treats_head_apart,
        image_size=trial.final_size,
    )
    correct_momentum(model, accumulation)
    model = model.to(device).to(memory_format=memory_format(trial.channels_last))
    precision = resolve_precision(trial.precision, device)
    runner = runner_for(trial, num_classes, precision, device)
    lr = torch.zeros((), device=device)
    shares = {}
    if trial.treats_head_apart:
        shares = lr_shares(model, head_of(model)[1], trial.backbone_lr_factor, trial.layer_decay)
    optimizer = build_optimizer(model, trial.optimizer, lr, trial.weight_decay, trial.momentum, shares)
    momenta = None
    if _cycles_momentum(trial):
        momenta = momentum_factors(trial.momentum, trial.epochs, updates_per_epoch, trial.warmup_epochs).to(device)
    step = WindowStep(
        model,
        optimizer,
        gradient_scaler(precision, device),
        lr=lr,
        peak_lr=trial.lr,
        lr_factors=lr_factors(
            trial.schedule, trial.epochs, updates_per_epoch, trial.warmup_epochs, trial.step_epochs, trial.step_factor
        ).to(device),
        momentum_factors=momenta,
        clipping=chosen_clipping(trial.max_norm, trial.clip_value, trial.agc),
        precision=precision,
        loss=build_loss(trial, train_labels, num_classes, device),
        average=WeightAverage(model, trial.ema) if trial.ema else None,
        log=UpdateLog(updates_per_epoch, device),
        runner=runner,
        frozen=freeze(model) if trial.unfreeze_epochs else None,
    )
    plateau = Plateau(trial.plateau_patience, trial.plateau_factor) if trial.schedule == "plateau" else None
    return Trainer(step, num_classes, plateau, trial.unfreeze_epochs)


def _cycles_momentum(trial: TrialConfig) -> bool:
    return trial.schedule == "onecycle" and trial.optimizer == "sgd" and trial.momentum > 0


def runner_for(trial: TrialConfig, num_classes: int, precision: Precision, device: torch.device) -> Runner:
    """Returns what runs the trial's steps: CUDA graphs on a GPU, unless the trial says otherwise."""
    if device.type != "cuda" or not trial.cuda_graphs:
        return Eager()
    clipping = chosen_clipping(trial.max_norm, trial.clip_value, trial.agc)
    switches = (
        trial.freeze_backbone,
        trial.channels_last,
        trial.loss,
        *_loss_options(trial).values(),
        trial.class_weights != "none",
        trial.label_smoothing > 0,
        trial.ema > 0,
        trial.momentum > 0,
        trial.backbone_lr_factor < 1 or trial.layer_decay < 1,
        _cycles_momentum(trial),
    )
    # A user's own optimizer may make its state in its first step, which must not be captured: it would be made anew in
    # every replay. No trial takes its first step for known from another one.
    optimizer = object() if registry.is_own(trial.optimizer) else trial.optimizer
    return CudaGraphs(
        device, (trial.model, num_classes, precision, optimizer, clipping and clipping.kind, trial.dropout, *switches)
    )


def memory_format(channels_last: bool) -> torch.memory_format:
    """Returns the layout of images and weights: channels_last is what tensor cores and oneDNN work in."""
    return torch.channels_last if channels_last else torch.contiguous_format


def build_loss(trial: TrialConfig, train_labels: Tensor, num_classes: int, device: torch.device) -> SampleLoss:
    """Returns the loss that `trial` is trained with.

    Args:
        train_labels: int64, on the CPU; class weights are counted from them.
    """
    weights_K = class_weights(trial.class_weights, train_labels, num_classes, trial.effective_beta)
    weights_K = weights_K.to(device) if weights_K is not None else None
    loss: SampleLoss = registry.resolve("loss", trial.loss)(weights_K, trial.label_smoothing, **_loss_options(trial))
    return loss


def _loss_options(trial: TrialConfig) -> dict[str, float]:
    """Returns the options of the trial's loss; a user's own has none."""
    if trial.loss == "focal":
        return {"gamma": trial.focal_gamma}
    return {"t1": trial.tempered_t1, "t2": trial.tempered_t2} if trial.loss == "bi_tempered" else {}


def window_settings(trial: TrialConfig, micro_batch: int, dtype: torch.dtype) -> WindowSettings:
    """Returns how the epochs of `trial` are cut into windows, and what is done to their images.

    Args:
        micro_batch: images at once; what the trial was planned for, or less where memory ran out.
        dtype: of the images.
    """
    mixing = Mixing(trial.mixup, trial.cutmix) if trial.mixes else None
    return WindowSettings(
        trial.effective_batch,
        micro_batch,
        trial.augment,
        mixing,
        trial.seed,
        dtype,
        normalisation_of(trial.model),
        trial.sampling,
    )


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory for the next tensor, and returns whether it did.

    By itself it hands the pages back.

    Every training step frees and takes the same megabytes; handed back, each page is faulted in again, zeroed, every
    step. Measured: a fifth of an epoch of a small CNN. The process's memory then stays at its peak until it ends.
    Elsewhere than on glibc nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    return mallopt is not None and bool(mallopt(M_TRIM_THRESHOLD, NEVER)) and bool(mallopt(M_MMAP_THRESHOLD, NEVER))
