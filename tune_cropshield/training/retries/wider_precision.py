"""A trial's training in fp16 with a way back: where fp16's range does not do, it goes on in a wider precision, once.

A network whose activations pass 65,504 cannot be trained in fp16: every loss scale overflows, and one forward pass
leaves inf in the batch norms' statistics for good. Both show by the epoch's end, so what is gone back to is the state
of the last epoch that ended well.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.host_copies import copies_on_host
from tune_cropshield.training.precision import resolve_precision, wider_precision
from tune_cropshield.training.retries.out_of_memory import Ladder
from tune_cropshield.training.trainer import Trainer


@dataclass(frozen=True)
class PrecisionChange:
    """One change of precision."""

    epoch: int  # the last good one, which training goes on after; 0 for the start
    before: Precision
    after: Precision
    reason: str

    @property
    def told(self) -> str:
        return f"training in {self.before} failed ({self.reason}): it goes on in {self.after} after epoch {self.epoch}"


class Training:
    """The trainer of a trial and the ladder it stands on, which are built anew when the precision changes.

    new_ladder: a trainer -> its ladder. note: called with the change of precision. loss_scale: fp16's first.
    """

    def __init__(
        self,
        trial: TrialConfig,
        data: DeviceData,
        new_ladder: Callable[[Trainer], Ladder],
        note: Callable[[PrecisionChange], object],
        loss_scale: float,
    ) -> None:
        self._loss_scale = loss_scale
        self._trial, self._data, self._new_ladder, self._note = trial, data, new_ladder, note
        self.precision = resolve_precision(trial.precision, data.device)
        self.ladder = self._built()
        self._good: dict[str, Any] | None = None  # the state after the last good epoch; kept in fp16 only
        self._good_epoch = 0

    def _built(self) -> Ladder:
        trial = self._trial.model_copy(update={"precision": self.precision})
        data = self._data
        labels = data.labels_N[data.indices("train")].cpu()
        return self._new_ladder(build_trainer(trial, len(data.data.classes), labels, data.device, self._loss_scale))

    def epoch_was_good(self, epoch: int) -> None:
        """Remembers the state after `epoch`, on the CPU."""
        if self.can_widen:
            self._good = None  # its memory is taken again
            parts, structure = tree_flatten(self.ladder.trainer.state())
            places = [place for place, part in enumerate(parts) if isinstance(part, Tensor)]
            for place, copy in zip(places, copies_on_host([parts[place] for place in places]), strict=True):
                parts[place] = copy
            self._good, self._good_epoch = tree_unflatten(parts, structure), epoch

    @property
    def can_widen(self) -> bool:
        """Whether there is a wider precision to go on in: once, from fp16."""
        return self.precision == "fp16"

    def widen(self, reason: str) -> None:
        """Goes back to the last good epoch, in a wider precision."""
        change = PrecisionChange(self._good_epoch, self.precision, wider_precision(self._data.device), reason)
        self._change_to(change.after)
        if self._good is not None:
            self.ladder.trainer.load_state(self._good)
        self._good = None
        self._note(change)

    def _change_to(self, precision: Precision) -> None:
        ladder_state = self.ladder.state()
        del self.ladder  # before its successor takes as much memory
        gc.collect()
        if self._data.device.type == "cuda":
            torch.cuda.empty_cache()
        self.precision = precision
        self.ladder = self._built()
        self.ladder.load_state(ladder_state)

    def state(self) -> dict[str, Any]:
        """Returns what `load_state` needs. To be asked for between epochs, the last one of which was good."""
        return {
            "trainer": self._good or self.ladder.trainer.state(),
            "ladder": self.ladder.state(),
            "precision": self.precision,
        }

    def load_state(self, state: dict[str, Any], epoch: int) -> None:
        """Takes up what `state` returned after `epoch`, in a training made for the same trial."""
        if state["precision"] != self.precision:
            self._change_to(state["precision"])
        self.ladder.load_state(state["ladder"])
        self.ladder.trainer.load_state(state["trainer"])
        self.epoch_was_good(epoch)
