"""What happens when memory runs out all the same: the same window again, in smaller parts.

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

MAX_TRAINING_STEPS = 2  # a pair four times too large is no accident any more: the trial does not fit

# (micro-batch, number of the first window) -> the rest of the epoch's windows, at that micro-batch
WindowsFrom = Callable[[int, int], Generator[Window]]
# (images at once) -> the evaluation's batches
BatchesOf = Callable[[int], Iterable[EvaluationBatch]]


@dataclass(frozen=True)
class LadderStep:
    """One lowering of the images worked on at once."""

    epoch: int  # 1 in the first
    part: Literal["training", "evaluation"]
    before: int  # images at once
    after: int
    reason: str


class Ladder:
    """Trains and evaluates `trainer` at `micro_batch` and `eval_batch`, and goes on with half of either when memory
    runs out.

    even: keep the micro-batch even, as mixing neighbours demands. note: called with each step down.
    """

    def __init__(
        self,
        trainer: Trainer,
        effective_batch: int,
        micro_batch: int,
        eval_batch: int,
        *,
        even: bool = False,
        note: Callable[[LadderStep], object] = lambda step: None,
    ) -> None:
        self.trainer, self.effective_batch = trainer, effective_batch
        self.micro_batch, self.eval_batch = micro_batch, eval_batch
        self.steps: list[LadderStep] = []
        self._smallest, self._note = 2 if even else 1, note  # also what every micro-batch is a multiple of
        self._failure: str | None = None  # why the window under way could not be trained

    def train_epoch(self, windows_from: WindowsFrom, epoch: int) -> TrainedEpoch:
        """Trains an epoch (from 1). Raises OutOfMemory after MAX_TRAINING_STEPS steps down in all, and the trainer's
        own errors.
        """
        return self.trainer.train_epoch(self._windows(windows_from, epoch), epoch, self._attempt)

    def _windows(self, windows_from: WindowsFrom, epoch: int) -> Iterator[Window]:
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
            self.trainer.step.go_back()
            self.lower_micro_batch(epoch, reason)

    def _attempt(self, window: Window) -> bool:
        """Trains `window`; returns False, the error gone with all that it held on to, when memory ran out before the
        weights changed.
        """
        step = self.trainer.step
        step.remember()
        try:
            step.train_window(window)
        except Exception as error:
            if step.updating or not is_out_of_memory(error):
                raise
            self._failure = first_line(error)
        return self._failure is None

    @property
    def can_lower(self) -> bool:
        """Whether the micro-batch may be halved (again)."""
        return (
            self.micro_batch > self._smallest
            and sum(step.part == "training" for step in self.steps) < MAX_TRAINING_STEPS
        )

    def lower_micro_batch(self, epoch: int, reason: str) -> None:
        """Halves the micro-batch. Raises OutOfMemory when it cannot be lowered (again)."""
        if not self.can_lower:
            raise OutOfMemory(
                f"out of memory at micro-batch {self.micro_batch}, after {len(self.steps)} steps down: {reason}"
            )
        half = max(self.micro_batch // 2, self._smallest)
        self._lower("training", epoch, half - half % self._smallest, reason)

    def validate(self, batches_of: BatchesOf, epoch: int) -> Evaluation:
        """Evaluates after epoch `epoch`. The batch is halved as often as needed: it changes no figure. Raises
        OutOfMemory below 1.
        """
        while True:
            try:
                return self.trainer.validate(batches_of(self.eval_batch), epoch)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            if self.eval_batch == 1:
                raise OutOfMemory(f"out of memory while evaluating a single image: {reason}")
            self._lower("evaluation", epoch, self.eval_batch // 2, reason)

    def _lower(self, part: Literal["training", "evaluation"], epoch: int, after: int, reason: str) -> None:
        step = LadderStep(epoch, part, self.micro_batch if part == "training" else self.eval_batch, after, reason)
        self._set(after, self.eval_batch) if part == "training" else self._set(self.micro_batch, after)
        self.steps.append(step)
        gc.collect()
        if self.trainer.step.device.type == "cuda":
            torch.cuda.empty_cache()
        self._note(step)

    def _set(self, micro_batch: int, eval_batch: int) -> None:
        """Goes on with these, the batch norms' momentum following the new accumulation; captured graphs hold the old
        one.
        """
        self.trainer.step.runner.forget()
        before, after = (math.ceil(self.effective_batch / size) for size in (self.micro_batch, micro_batch))
        correct_momentum(self.trainer.step.model, after / before)
        self.micro_batch, self.eval_batch = micro_batch, eval_batch

    def state(self) -> dict[str, Any]:
        """Returns what `load_state` needs to go on where this trial stands."""
        return {
            "micro_batch": self.micro_batch,
            "eval_batch": self.eval_batch,
            "steps": [asdict(step) for step in self.steps],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes up what `state` returned, in a ladder made for the same trial."""
        self._set(state["micro_batch"], state["eval_batch"])
        self.steps = [LadderStep(**step) for step in state["steps"]]
