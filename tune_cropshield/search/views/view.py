"""What is known while a search runs. This base shows nothing; how it is shown is its children's business."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tune_cropshield.config.goals import VAL_ACC, Goal
from tune_cropshield.config.reference import ends_reference
from tune_cropshield.config.units import describe_seconds
from tune_cropshield.search.endings import FINISHED, METRIC, PRUNED
from tune_cropshield.search.views.time_left import Pace, seconds_left, surviving_shares


@dataclass
class TrialLine:
    """What is shown of one trial."""

    number: int
    parameters: dict[str, Any]
    pair: str  # micro-batch x accumulation
    epochs: int  # at most, those of all parts together
    lr: float = math.nan
    max_norm: float | str = "none"
    parts: int = 1  # the trainings that it is
    epoch: int = 0
    value: float = math.nan  # the goal's, of its last epoch
    best_value: float = math.nan  # the goal's, of its best epoch
    val_acc: float = math.nan  # of its best epoch
    best_epoch: int = 0  # the epoch of best_value, once this run has reported one
    images_per_s: float = math.nan
    vram_mib: float = 0.0

    @property
    def label(self) -> str:
        return f"t{self.number:03d}"

    @property
    def parts_ended(self) -> int:
        """How many of its parts have ended; 0 of a trial that is one training."""
        return self.epoch * self.parts // self.epochs if self.parts > 1 else 0

    @property
    def part(self) -> str:
        """The part of its last epoch in words like "part 2 of 5", "" of a trial that is one training."""
        if self.parts == 1:
            return ""
        return f"part {max(self.epoch - 1, 0) * self.parts // self.epochs + 1} of {self.parts}"

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
    epochs: int = 1  # of a trial that is never pruned
    running: dict[int, TrialLine] = field(default_factory=dict)
    ended: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    best: TrialLine | None = None
    goal: Goal = VAL_ACC
    best_value: float = math.nan  # of `best`, when it was found
    best_parts: int = 0  # of its parts, those that had ended then: more of them count more than a better value
    clock: Callable[[], float] = time.monotonic
    started: float = field(default_factory=time.monotonic)
    trials_end: float | None = None  # by `clock`: no trial goes on after it, whatever is left
    ends: float | None = None  # by `clock`: when the whole search ends that has a time budget
    finishes: bool = False  # the winner is trained on after the trials
    pruned_shares: Mapping[int, float] = field(default_factory=dict)  # {pruning step: the share it is meant to stop}
    pace: Pace = field(default_factory=Pace)
    lengths: dict[int, int] = field(default_factory=dict)  # by trial: the epochs of those that have ended
    ended_as: dict[int, str] = field(default_factory=dict)  # by trial: the outcome of those that have ended
    trained_at_last: int | None = None  # trained to its end when no other waits, where that costs little

    def begin(self, num_trials: int, num_ended: int) -> None:
        """The search begins; `num_ended` trials ended in earlier runs."""
        self.num_trials, self.ended, self.started = num_trials, num_ended, self.clock()

    def recall(self, line: TrialLine, outcome: str | None) -> None:
        """A trial came so far in an earlier run of the search. outcome: how it ended; None where it goes on now."""
        if outcome is not None:
            self._note_end(line, outcome)
        self._judge(line)

    def trial_started(self, line: TrialLine) -> None:
        """A trial begins, or goes on after the epoch that its line tells, perhaps one that had been stopped there."""
        if (outcome := self.ended_as.pop(line.number, None)) is not None:
            self.ended -= 1
            self.outcomes[outcome] -= 1
            del self.lengths[line.number]
        self.running[line.number], self.epochs = line, line.epochs
        self.pace.running(len(self.running), self.clock())

    def epoch_done(self, number: int, metrics: dict[str, Any]) -> None:
        """A trial reported an epoch."""
        line = self.running[number]
        if int(metrics["epoch"]) > line.epoch:  # else one that was trained before is told again
            self.pace.epoch(self.clock())
        line.epoch, line.value, line.best_value = int(metrics["epoch"]), self.goal.value(metrics), metrics[METRIC]
        line.best_epoch, line.val_acc = int(metrics["best_epoch"]), metrics["best_val_acc"]
        line.images_per_s, line.vram_mib = metrics["images_per_s"], metrics["peak_vram_mib"]
        if self._judge(line):
            self.new_best(line)

    def _judge(self, line: TrialLine) -> bool:
        """Takes in a trial's best so far, and tells whether it is better than everything before."""
        if self.best is not None and line.number == self.best.number:
            self.best = line  # a worker's death may have taken an epoch back
        ours, known = self.goal.rank(line.best_value), self.goal.rank(self.best_value)
        if not math.isfinite(ours) or not (line.parts_ended, ours) > (self.best_parts, known):
            return False
        self.best, self.best_value, self.best_parts = line, line.best_value, line.parts_ended
        return True

    def new_best(self, line: TrialLine) -> None:
        """A trial is better than everything before."""

    def trial_ended(self, number: int, outcome: str, reason: str | None) -> None:
        """A trial ended."""
        self._note_end(self.running.pop(number), outcome)
        self.pace.running(len(self.running), self.clock())
        self.ended += 1

    def _note_end(self, line: TrialLine, outcome: str) -> None:
        self.ended_as[line.number], self.lengths[line.number] = outcome, line.epoch
        self.outcomes[outcome] += 1

    def note(self, text: str) -> None:
        """Something a person should know on the way."""

    def result(self, lines: Sequence[str], facts: dict[str, Any]) -> None:
        """The result: in sentences for people, as plain values for programs."""

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
        """Returns an estimate of the time left, "" before the first epoch of this run and after the end.

        While nothing is known of how early trials are pruned, it is what the search takes at most.
        """
        pace = self.pace.seconds_per_epoch
        if pace is None or (self.ended >= self.num_trials and not self._epochs_at_last):
            return ""
        left = max(self._seconds_left(pace), 1.0)
        if self.finishes and self.ends is not None:
            return f"about {describe_seconds(max(self.ends - self.clock(), 1.0))} left, with the final training"
        how = "about" if self.lengths else "at most"
        if self.trials_end is not None and left >= (budget_left := self.trials_end - self.clock()):
            how, left = "at most", max(budget_left, 1.0)
        return f"{how} {describe_seconds(left)} left" + (" before the final training" if self.finishes else "")

    @property
    def _epochs_at_last(self) -> int:
        """The epochs that are left of the trial that is trained at last, where it was stopped and that costs little."""
        number = self.trained_at_last
        if number is None or self.ended_as.get(number) != PRUNED:
            return 0
        trained = sum(self.lengths.values()) + sum(line.epoch for line in self.running.values())
        done = self.lengths[number]
        return self.epochs - done if ends_reference(self.epochs, done, trained) else 0

    def _seconds_left(self, seconds_per_epoch: float) -> float:
        lines, epochs = list(self.running.values()), self.epochs
        shares = surviving_shares([*self.lengths.values()], [line.epoch for line in lines], epochs, self.pruned_shares)

        def expected(line: TrialLine) -> float:
            if line.number == self.trained_at_last or line.epoch >= epochs or not shares[line.epoch]:
                return max(epochs - line.epoch, 0)
            return sum(shares[line.epoch :]) / shares[line.epoch]

        waiting = max(self.num_trials - self.ended - len(lines), 0)
        slots = max(self.pace.slots, 1)
        return seconds_left(map(expected, lines), waiting, sum(shares), slots, seconds_per_epoch, self._epochs_at_last)

    def counts_text(self) -> str:
        """Returns how the trials ended so far: "7 pruned, 2 finished"; "" before the first."""
        return ", ".join(
            f"{count} {outcome}"
            for outcome, count in sorted(self.outcomes.items(), key=lambda item: (item[0] == FINISHED, item[0]))
            if count
        )

    def best_text(self) -> str:
        """Returns the best so far in one line."""
        if not self.pace.slots:
            return "starting the worker processes"
        return (
            f"best so far: {self.best.label} {self.goal.named(self.best_value)} ({self.best.settings()})"
            if self.best
            else "no result yet"
        )
