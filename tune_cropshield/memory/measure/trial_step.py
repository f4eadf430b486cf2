"""A trial's own training step on random pictures: what its memory and speed are measured on."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.windows import Window, evaluation_batches, training_windows
from tune_cropshield.training.build import build_trainer, window_settings
from tune_cropshield.training.precision import DTYPES

MICRO_STEPS = 2  # the second one meets the gradients of the first: more would find nothing new
PICTURES = 16  # of random pixels; every micro-batch is gathered from these


class TrialStep:
    """The step of `trial`, whatever its own pair, at `micro_batch`.

    Windows of two micro-steps, augmented and mixed as in a trial; unscaling, clipping, the optimizer.

    `window` can be called `num_windows` times. `finish` adds what a trial meets beside whole windows: an evaluation
    batch, and without CUDA graphs a ragged last window, whose other sizes fragment memory (graphs share theirs).
    """

    def __init__(
        self, trial: TrialConfig, num_classes: int, micro_batch: int, device: torch.device, num_windows: int
    ) -> None:
        cuda = device.type == "cuda"
        self.micro_batch, self.images_per_window = micro_batch, MICRO_STEPS * micro_batch
        # One micro-batch and a third of one, even where that must be.
        ragged = 0 if cuda and trial.cuda_graphs else micro_batch + 2 * math.ceil(micro_batch / 6)
        self._indices = torch.arange(num_windows * self.images_per_window + ragged) % PICTURES
        self._short_epoch = self._indices[-ragged - self.images_per_window :]
        self._size = trial.final_size
        side = Preparation(self._size).store_side
        pictures = torch.randint(256, (PICTURES, side, side, 3), dtype=torch.uint8)
        self._feed = ImageFeed(pictures, device, resident=cuda)
        self._labels_N = torch.randint(num_classes, (PICTURES,)).to(device)
        own = {"effective_batch": self.images_per_window, "micro_batch": micro_batch, "accumulation": MICRO_STEPS}
        # As it is when the whole network trains, which takes the most.
        trial = trial.model_copy(update={**own, "pretrained": False, "epochs": 1, "unfreeze_epochs": 0})
        train_labels = self._labels_N.cpu()[self._indices]
        self._trainer = build_trainer(trial, num_classes, train_labels, device)
        self._dtype = DTYPES[self._trainer.step.precision]
        self._cut = window_settings(trial, micro_batch, self._dtype)
        self._begin_epoch(self._indices)

    def window(self) -> None:
        """Makes one optimizer update."""
        self._train(next(self._windows))

    def finish(self) -> None:
        """Ends the epoch, evaluates, and does both once more in short.

        What is new to the process first runs as it is, and is captured as a graph the second time; both take memory.
        """
        self._end_epoch()
        self._begin_epoch(self._short_epoch)
        self._end_epoch()

    def _begin_epoch(self, indices: Tensor) -> None:
        self._trainer.step.model.train()
        self._trainer.step.log.start()
        self._windows = training_windows(self._feed, self._labels_N, indices, self._cut, 0, self._size)

    def _end_epoch(self) -> None:
        for window in self._windows:
            self._train(window)
        batches = evaluation_batches(
            self._feed,
            self._labels_N,
            self._indices[: self.micro_batch],
            self.micro_batch,
            self._size,
            self._dtype,
            self._cut.normalisation,
        )
        self._trainer.evaluator.evaluate(batches)

    def _train(self, window: Window) -> None:
        self._trainer.step.remember()
        self._trainer.step.train_window(window)
