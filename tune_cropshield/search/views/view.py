"""What is known while a search runs. This base shows nothing; how it is shown is its children's business."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tune_cropshield.config.units import describe_seconds
from tune_cropshield.search.endings import FINISHED


@dataclass
class TrialLine:
    """What is shown of one trial."""

    number: int
    parameters: dict[str, Any]
    pair: str  # micro-batch x accumulation
    epochs: int  # at most
    lr: float = math.nan
    max_norm: float | str = "none"
    epoch: int = 0
    val_acc: float = math.nan
    best_val_acc: float = math.nan
    images_per_s: float = math.nan
    vram_mib: float = 0.0

    @property
    def label(self) -> str:
        return f"t{self.number:03d}"

    def settings(self, leave_out: Sequence[str] = ()) -> str:
        """Returns the parameters in a few words."""
        return " ".join(f"{name}={short(value)}" for name, value in self.parameters.items() if name not in leave_out)


def short(value: object) -> str:
    """Returns a parameter's value in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@dataclass
class SearchView:
    """Base: keeps what is known, shows nothing."""

    num_trials: int = 0
    running: dict[int, TrialLine] = field(default_factory=dict)
    ended: int = 0
    ended_before: int = 0  # in earlier runs of the search
    epochs_seen: int = 0  # in this run
    outcomes: Counter[str] = field(default_factory=Counter)
    best: TrialLine | None = None
    best_val_acc: float = -1.0  # of `best`, when it was found
    started: float = field(default_factory=time.monotonic)
    first_started: float | None = None  # the first trial; before it, workers start up, which says nothing about trials

    def begin(self, num_trials: int, num_ended: int) -> None:
        """The search begins; `num_ended` trials ended in earlier runs."""
        self.num_trials, self.ended, self.ended_before, self.started = (
            num_trials,
            num_ended,
            num_ended,
            time.monotonic(),
        )

    def recall(self, line: TrialLine, outcome: str) -> None:
        """A trial ended so in an earlier run of the search."""
        self.outcomes[outcome] += 1
        self._judge(line)

    def trial_started(self, line: TrialLine) -> None:
        """A trial begins or goes on."""
        if self.first_started is None:
            self.first_started = time.monotonic()
        self.running[line.number] = line

    def epoch_done(self, number: int, metrics: dict[str, Any]) -> None:
        """A trial reported an epoch."""
        line = self.running[number]
        self.epochs_seen += 1
        line.epoch, line.val_acc, line.best_val_acc = int(metrics["epoch"]), metrics["val_acc"], metrics["best_val_acc"]
        line.images_per_s, line.vram_mib = metrics["images_per_s"], metrics["peak_vram_mib"]
        if self._judge(line):
            self.new_best(line)

    def _judge(self, line: TrialLine) -> bool:
        """Takes in a trial's best so far, and tells whether it is better than everything before."""
        if self.best is not None and line.number == self.best.number:
            self.best = line  # a worker's death may have taken an epoch back
        if not line.best_val_acc > self.best_val_acc:  # NaN is not
            return False
        self.best, self.best_val_acc = line, line.best_val_acc
        return True

    def new_best(self, line: TrialLine) -> None:
        """A trial is better than everything before."""

    def trial_ended(self, number: int, outcome: str, reason: str | None) -> None:
        """A trial ended."""
        self.running.pop(number, None)
        self.ended += 1
        self.outcomes[outcome] += 1

    def note(self, text: str) -> None:
        """Something a person should know on the way."""

    def result(self, lines: Sequence[str], facts: dict[str, Any]) -> None:
        """What came of it: in sentences for people, as plain values for programs."""

    def leave(self) -> None:
        """The process is about to end without an orderly end: the terminal is put right."""

    @contextmanager
    def steps(self, label: str) -> Iterator[Any]:
        """Yields a function (done, total) that shows how far a long preparation has come."""
        yield lambda done, total: None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows progress for as long as the block runs."""
        yield

    def left_text(self) -> str:
        """Returns an estimate of the time left.

        It is made from the trials that ended in this run, before the first of them from the epochs; "" before the first
        epoch.
        """
        if self.first_started is None or self.ended == self.num_trials:
            return ""
        spent, ended = time.monotonic() - self.first_started, self.ended - self.ended_before
        if ended:
            return f"about {describe_seconds(spent / ended * (self.num_trials - self.ended))} left"
        if not self.epochs_seen:
            return ""
        epochs = (self.num_trials - self.ended) * max(line.epochs for line in self.running.values())
        missing = epochs - sum(line.epoch for line in self.running.values())
        return f"at most {describe_seconds(spent / self.epochs_seen * missing)} left"

    def counts_text(self) -> str:
        """Returns how the trials ended so far: "7 pruned, 2 finished"; "" before the first."""
        return ", ".join(
            f"{count} {outcome}"
            for outcome, count in sorted(self.outcomes.items(), key=lambda item: (item[0] == FINISHED, item[0]))
        )

    def best_text(self) -> str:
        """Returns the best so far in one line."""
        if self.first_started is None:
            return "starting the workers"
        return (
            f"best so far: {self.best.label} val_acc {self.best_val_acc:.4f} ({self.best.settings()})"
            if self.best
            else "no result yet"
        )
