"""A network in training: everything that changes from epoch to epoch, and the two things done with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from tune_cropshield.data.windows import EvaluationBatch, Window
from tune_cropshield.errors import DivergedError
from tune_cropshield.training.evaluate import Evaluator
from tune_cropshield.training.metrics import Evaluation
from tune_cropshield.training.models import load_weights
from tune_cropshield.training.optimizers import lr_shares_of, share_lr
from tune_cropshield.training.schedules import Plateau
from tune_cropshield.training.step import WindowStep, random_state, restore_random_state
from tune_cropshield.training.update_log import UpdateSummary

SMALLEST_LOSS_SCALE = 1.0  # below it even unscaled gradients overflow fp16: halving on would train nothing


@dataclass(frozen=True)
class TrainedEpoch:
    """What an epoch's training came to."""

    updates: UpdateSummary
    images: int
    seconds: float


class Trainer:
    """Trains and evaluates `step.model`; `state` and `load_state` carry it over a stop.

    plateau: drops the learning rate when `validated` is told of losses that no longer fall; None for other schedules.
    unfreeze_epochs: so many epochs a frozen backbone stays frozen.
    """

    def __init__(self, step: WindowStep, num_classes: int, plateau: Plateau | None, unfreeze_epochs: int = 0) -> None:
        self.step, self.plateau, self.unfreeze_epochs = step, plateau, unfreeze_epochs
        self.evaluator = Evaluator(self.evaluated_model, num_classes, step.precision, step.device, step.runner)

    @property
    def evaluated_model(self) -> nn.Module:
        """The network that is judged and kept: the averaged one where there is an average."""
        return self.step.average.model if self.step.average is not None else self.step.model

    def train_epoch(
        self, windows: Iterable[Window], epoch: int, attempt: Callable[[Window], bool] | None = None
    ) -> TrainedEpoch:
        """Makes one update per window. `epoch` counts from 1.

        Raises DivergedError when a gradient was not finite, as soon as that is known and at the epoch's end at the
        latest; in fp16 only at the end of an epoch that left every update out, or lowered the loss scale to where it
        cannot help.

        attempt: trains a window in the step's place and tells whether its update was made; `windows` then hands the
        window out again.
        """
        step = self.step
        if epoch > self.unfreeze_epochs:
            step.unfreeze()
        step.model.train()
        step.log.start()
        started = time.perf_counter()
        images = made = 0
        for window in windows:
            if attempt is None:
                step.train_window(window)
            elif not attempt(window):
                continue
            images += window.num_samples
            made += 1
            if not step.scaler.is_enabled() and step.log.skipped_so_far():
                break
        updates = step.log.summary()
        if not step.scaler.is_enabled() and updates.skipped_steps:
            raise self._diverged("a gradient", epoch)
        if step.scaler.is_enabled() and (
            updates.skipped_steps == made or step.scaler.get_scale() < SMALLEST_LOSS_SCALE
        ):
            raise self._diverged("a gradient (at every loss scale)", epoch)
        return TrainedEpoch(updates, images, time.perf_counter() - started)

    def validate(self, batches: Iterable[EvaluationBatch], epoch: int) -> Evaluation:
        """Evaluates the network and lets plateau see the loss. Raises DivergedError when the loss is not finite."""
        evaluation = self.evaluator.evaluate(batches)
        if not torch.isfinite(torch.tensor(evaluation.loss)):
            raise self._diverged("the validation loss", epoch)
        if self.plateau is not None:
            self.step.lr_scale.fill_(self.plateau.epoch_ended(evaluation.loss))
            self.step.set_lr()
        return evaluation

    def backbone_lrs(self, lr: float) -> dict[str, float]:
        """Returns the learning rates of the backbone's last and first block where the head's is `lr`.

        Without layer decay it is one rate; there is none where the backbone always learns as the head does.
        """
        shares = lr_shares_of(self.step.optimizer)
        if not shares and not self.unfreeze_epochs:
            return {}
        last, first = (max(shares), min(shares)) if shares else (1.0, 1.0)
        now = lr if self.step.frozen is None else 0.0
        return {"backbone_lr": last * now} | ({"first_block_lr": first * now} if first < last else {})

    def _diverged(self, what: str, epoch: int) -> DivergedError:
        return DivergedError(what, epoch, int(self.step.updates), self.step.log.summary().last_grad_norm)

    def state(self) -> dict[str, Any]:
        """Returns everything that `load_state` needs to go on with the same numbers.

        It holds tensors, numbers and dicts of these.
        """
        step = self.step
        return {
            "model": step.model.state_dict(),
            "optimizer": step.optimizer.state_dict(),
            "scaler": step.scaler.state_dict(),
            "average": step.average.model.state_dict() if step.average is not None else None,
            "plateau": asdict(self.plateau) if self.plateau is not None else None,
            "updates": int(step.updates),
            "random": random_state(step.device),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what `state` returned; the trainer must have been built with the same settings."""
        step = self.step
        load_weights(step.model, state["model"])
        step.optimizer.load_state_dict(state["optimizer"])
        share_lr(step.optimizer, step.lr)
        step.scaler.load_state_dict(state["scaler"])
        if step.average is not None:
            load_weights(step.average.model, state["average"])
        if self.plateau is not None:
            self.plateau = Plateau(**state["plateau"])
            step.lr_scale.fill_(self.plateau.scale)
        step.updates.fill_(state["updates"])
        step.set_lr()
        restore_random_state(state["random"], step.device)
