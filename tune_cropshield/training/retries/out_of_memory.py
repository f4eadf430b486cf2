"""What happens when memory runs out inside a trial: the same window once more, in micro-batches half as large.

The effective batch, its samples and what augmentation does to them stay as they are; only how many images are worked on
at once changes, and stays changed. Without batch norm the result is the one that the smaller micro-batch would have
given from the start.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from tune_cropshield.data.windows import EvaluationBatch, Window
from tune_cropshield.errors import OutOfMemory
from tune_cropshield.training.gpu_errors import first_line, is_out_of_memory
from tune_cropshield.training.metrics import Evaluation
from tune_cropshield.training.models import correct_momentum
from tune_cropshield.training.trainer import TrainedEpoch, Trainer

MAX_TRAINING_RETRIES = 2  # a pair four times too large is no accident any more: the trial does not fit

# (micro-batch, number of the first window) -> the rest of the epoch's windows, at that micro-batch
WindowsFrom = Callable[[int, int], Generator[Window]]
# (images at once) -> the evaluation's batches
BatchesOf = Callable[[int], Iterable[EvaluationBatch]]


@dataclass(frozen=True)
class OutOfMemoryRetry:
    """Memory ran out, and the work was done again with fewer images at once."""

    epoch: int  # 1 in the first
    part: Literal["training", "evaluation"]
    before: int  # images at once
    after: int
    reason: str


class OutOfMemoryPolicy:
    """Trains and evaluates at `micro_batch` and `eval_batch`, and goes on with half of either when memory runs out.

    Args:
        effective_batch: images of one update; never changed.
        micro_batch: images that the trainers handed in were built to work on at once.
        eval_batch: images evaluated at once.
        even: keep the micro-batch even, as mixing neighbours demands.
        smallest: returns the fewest images that the network can be trained on at once; called where it matters.
        note: called with each retry.
    """

    def __init__(
        self,
        effective_batch: int,
        micro_batch: int,
        eval_batch: int,
        *,
        even: bool = False,
        smallest: Callable[[], int] = lambda: 1,
        note: Callable[[OutOfMemoryRetry], object] = lambda retry: None,
    ) -> None:
        self.effective_batch, self.micro_batch, self.eval_batch = effective_batch, micro_batch, eval_batch
        self.retries: list[OutOfMemoryRetry] = []
        self._planned, self._even, self._smallest, self._note = micro_batch, even, smallest, note
        self._failure: str | None = None  # why the window under way could not be trained

    def train_epoch(self, trainer: Trainer, windows_from: WindowsFrom, epoch: int) -> TrainedEpoch:
        """Trains epoch `epoch` (from 1).

        Raises:
            OutOfMemory: after MAX_TRAINING_RETRIES retries in all.
            Exception: whatever else the trainer raises.
        """
        windows = self._windows(trainer, windows_from, epoch)
        return trainer.train_epoch(windows, epoch, lambda window: self._attempt(trainer, window))

    def _windows(self, trainer: Trainer, windows_from: WindowsFrom, epoch: int) -> Iterator[Window]:
        """Yields every window until its update was made, each anew after a failure."""
        trained = 0
        while True:
            with closing(windows_from(self.micro_batch, trained)) as windows:
                for window in windows:
                    yield window
                    if self._failure is not None:
                        window.micro_batches.close()  # it holds images
                        break
                    trained += 1
                else:
                    return
            reason, self._failure = self._failure, None
            assert reason is not None
            trainer.step.go_back()
            self.halve_micro_batch(trainer, epoch, reason)

    def _attempt(self, trainer: Trainer, window: Window) -> bool:
        """Trains `window`; returns False when memory ran out before the weights changed.

        The error is then gone, with all the tensors that its traceback held on to.
        """
        step = trainer.step
        step.remember()
        try:
            step.train_window(window)
        except Exception as error:
            if step.updating or not is_out_of_memory(error):
                raise
            self._failure = first_line(error)
        return self._failure is None

    @property
    def can_halve(self) -> bool:
        """Whether the micro-batch may be halved (again)."""
        return self._half < self.micro_batch and self._training_retries < MAX_TRAINING_RETRIES

    @property
    def _half(self) -> int:
        """Half the micro-batch, or as many images as it takes at least."""
        half = self.micro_batch // 2
        half -= half % 2 if self._even else 0
        return half if half > 1 else max(self._smallest(), 2 if self._even else 1)

    @property
    def _training_retries(self) -> int:
        return sum(retry.part == "training" for retry in self.retries)

    def halve_micro_batch(self, trainer: Trainer, epoch: int, reason: str) -> None:
        """Goes on with half the micro-batch. Raises OutOfMemory when it cannot be halved (again)."""
        if not self.can_halve:
            done = f"after {self._training_retries} retries with fewer"
            raise OutOfMemory(f"out of memory with micro-batches of {self.micro_batch}, {done}: {reason}")
        half = self._half
        retry = OutOfMemoryRetry(epoch, "training", self.micro_batch, half, reason)
        self._set_micro_batch(trainer, half)
        self._retried(trainer, retry)

    def validate(self, trainer: Trainer, batches_of: BatchesOf, epoch: int) -> Evaluation:
        """Evaluates after epoch `epoch`. The batch is halved as often as needed: it changes no figure.

        Raises:
            OutOfMemory: not even one image can be evaluated.
        """
        while True:
            try:
                return trainer.validate(batches_of(self.eval_batch), epoch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            if self.eval_batch == 1:
                raise OutOfMemory(f"out of memory while evaluating a single image: {reason}")
            retry = OutOfMemoryRetry(epoch, "evaluation", self.eval_batch, self.eval_batch // 2, reason)
            self.eval_batch = retry.after
            trainer.step.runner.forget()
            self._retried(trainer, retry)

    def _retried(self, trainer: Trainer, retry: OutOfMemoryRetry) -> None:
        self.retries.append(retry)
        gc.collect()
        if trainer.step.device.type == "cuda":
            torch.cuda.empty_cache()
        self._note(retry)

    def _set_micro_batch(self, trainer: Trainer, micro_batch: int) -> None:
        """Sets it; the batch norms' momentum follows the new accumulation, and captured graphs hold the old one."""
        trainer.step.runner.forget()
        before, after = (math.ceil(self.effective_batch / size) for size in (self.micro_batch, micro_batch))
        correct_momentum(trainer.step.model, after / before)
        self.micro_batch = micro_batch

    def adapt(self, trainer: Trainer) -> None:
        """Makes `trainer`, newly built for the planned micro-batch, one for the micro-batch of now."""
        now, self.micro_batch = self.micro_batch, self._planned
        self._set_micro_batch(trainer, now)

    def state(self) -> dict[str, Any]:
        """Returns what `load_state` needs to go on where this trial stands."""
        retries = [asdict(retry) for retry in self.retries]
        return {"micro_batch": self.micro_batch, "eval_batch": self.eval_batch, "retries": retries}

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what `state` returned; `adapt` has to follow for the trainer."""
        self.micro_batch, self.eval_batch = state["micro_batch"], state["eval_batch"]
        self.retries = [OutOfMemoryRetry(**retry) for retry in state["retries"]]
