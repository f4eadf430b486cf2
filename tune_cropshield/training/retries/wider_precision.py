"""What happens when fp16's range is too small: the trial goes on in a wider precision, once, from its last good epoch.

A network whose activations pass 65,504 cannot be trained in fp16: every loss scale overflows, and one forward pass
leaves inf in the batch norms' statistics for good. Both show by the epoch's end, so what is gone back to is the state
of the last epoch that ended well.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tune_cropshield.config.settings import Precision, PrecisionChoice
from tune_cropshield.training.host_copies import copies_on_host
from tune_cropshield.training.precision import resolve_precision, wider_precision
from tune_cropshield.training.trainer import Trainer


@dataclass(frozen=True)
class PrecisionChange:
    """One change of precision."""

    epoch: int  # the last good one, after which training goes on; 0 for the start
    before: Precision
    after: Precision
    reason: str

    @property
    def told(self) -> str:
        """The change in a sentence."""
        return (
            f"training in {self.before} failed ({self.reason}): it continues in {self.after} after epoch {self.epoch}"
        )


class PrecisionPolicy:
    """Knows the `precision` to train in now, and the last good state for the way back.

    Args:
        wanted: the trial's setting; "auto" is decided for `device`.
        device: where it trains.
        note: called with the change of precision.
    """

    def __init__(
        self,
        wanted: PrecisionChoice,
        device: torch.device,
        note: Callable[[PrecisionChange], object],
    ) -> None:
        self._device, self._note = device, note
        self.precision = resolve_precision(wanted, device)
        self._good: dict[str, Any] | None = None  # the state after the last good epoch, on the CPU; in fp16 only
        self._good_epoch = 0

    @property
    def can_widen(self) -> bool:
        """Whether there is a wider precision to go on in: once, from fp16."""
        return self.precision == "fp16"

    def epoch_was_good(self, trainer: Trainer, epoch: int) -> None:
        """Remembers the trainer's state after `epoch`, where it may be gone back to."""
        if self.can_widen:
            self._good = None  # its memory is taken again
            self._good, self._good_epoch = _on_host(trainer.state()), epoch

    def rebuild_wider(self, build: Callable[[Precision], Trainer], reason: str) -> Trainer:
        """Returns a trainer in a wider precision that stands where the last good epoch ended.

        Args:
            build: makes a new trainer; the old one must be gone by now, for both may not fit the GPU.
            reason: why the precision until now failed.
        """
        change = PrecisionChange(self._good_epoch, self.precision, wider_precision(self._device), reason)
        self.precision = change.after
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        trainer = build(change.after)
        if self._good is not None:
            trainer.load_state(self._good)
        self._good = None
        self._note(change)
        return trainer

    def good_state(self, trainer: Trainer) -> dict[str, Any]:
        """Returns the trainer's state between epochs, without copying it where the last good one is kept anyway."""
        return self._good or trainer.state()


def _on_host(state: dict[str, Any]) -> dict[str, Any]:
    """Returns `state` with copies of its tensors on the CPU, all fetched at once."""
    copies = iter(copies_on_host(list(_tensors(state))))

    def copied(value: Any) -> Any:
        if isinstance(value, Tensor):
            return next(copies)
        if isinstance(value, dict):
            return {key: copied(item) for key, item in value.items()}
        return [copied(item) for item in value] if isinstance(value, list) else value

    whole: dict[str, Any] = copied(state)
    return whole


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yields the tensors in nested dicts and lists, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _tensors(item)
