"""What a person sees while a search runs: one line per running trial and the best so far; plain lines when nobody watches."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tune_cropshield.units import describe_seconds


@dataclass
class TrialLine:
    """What is shown of one trial."""

    number: int
    parameters: dict[str, Any]
    pair: str
    epochs: int  # at most
    epoch: int = 0
    val_acc: float = math.nan
    best_val_acc: float = math.nan
    images_per_s: float = math.nan
    vram_mib: float = 0.0

    @property
    def label(self) -> str:
        return f"t{self.number:03d}"

    def settings(self) -> str:
        """Returns the parameters in a few words."""
        return " ".join(f"{name}={short(value)}" for name, value in self.parameters.items())


def short(value: object) -> str:
    """Returns a parameter's value in few characters."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@dataclass
class SearchView:
    """Base: keeps what is known, shows nothing."""

    num_trials: int = 0
    running: dict[int, TrialLine] = field(default_factory=dict)
    ended: int = 0
    best: TrialLine | None = None
    started: float = field(default_factory=time.monotonic)
    first_started: float | None = None  # the first trial; before it, workers start up, which says nothing about trials

    def begin(self, num_trials: int, num_ended: int) -> None:
        """The search begins; `num_ended` trials ended in earlier runs."""
        self.num_trials, self.ended, self.started = num_trials, num_ended, time.monotonic()
        self._ended_before = num_ended

    def trial_started(self, line: TrialLine) -> None:
        """A trial begins or goes on."""
        if self.first_started is None:
            self.first_started = time.monotonic()
        self.running[line.number] = line

    def epoch_done(self, number: int, metrics: dict[str, Any]) -> None:
        """A trial reported an epoch."""
        line = self.running[number]
        line.epoch, line.val_acc, line.best_val_acc = int(metrics["epoch"]), metrics["val_acc"], metrics["best_val_acc"]
        line.images_per_s, line.vram_mib = metrics["images_per_s"], metrics["peak_vram_mib"]
        if self.best is None or line.best_val_acc > self.best.best_val_acc or line.number == self.best.number:
            self.best = line

    def trial_ended(self, number: int, outcome: str, reason: str | None) -> None:
        """A trial ended."""
        self.running.pop(number, None)
        self.ended += 1

    def note(self, text: str) -> None:
        """Something a person should know."""

    @contextmanager
    def steps(self, label: str) -> Iterator[Any]:
        """Yields a function (done, total) that shows how far a long preparation has come."""
        yield lambda done, total: None

    @contextmanager
    def live(self) -> Iterator[None]:
        """Shows progress for as long as the block runs."""
        yield

    def seconds_left(self) -> float | None:
        """Returns an estimate from the trials that ended in this run; None before the first."""
        ended = self.ended - self._ended_before
        if not ended or self.first_started is None:
            return None
        return (time.monotonic() - self.first_started) / ended * (self.num_trials - self.ended)

    def best_text(self) -> str:
        """Returns the best so far in one line."""
        if self.first_started is None:
            return "starting the workers"
        return f"best so far: {self.best.label} val_acc {self.best.best_val_acc:.4f} ({self.best.settings()})" if self.best else "no result yet"


class PlainView(SearchView):
    """One line per event, for logs and pipes."""

    def note(self, text: str) -> None:
        print(text, flush=True)

    def trial_started(self, line: TrialLine) -> None:
        super().trial_started(line)
        print(f"{line.label} starts: {line.settings()} pair={line.pair}", flush=True)

    def trial_ended(self, number: int, outcome: str, reason: str | None) -> None:
        line = self.running[number]
        super().trial_ended(number, outcome, reason)
        left = self.seconds_left()
        print(
            f"{line.label} {outcome} after {line.epoch} of {line.epochs} epochs, best val_acc {line.best_val_acc:.4f}"
            + (f": {reason}" if reason else "")
            + f"; {self.ended} of {self.num_trials} trials"
            + (f", about {describe_seconds(left)} left" if left else ""),
            flush=True,
        )

    @contextmanager
    def steps(self, label: str) -> Iterator[Any]:
        print(label, flush=True)
        yield lambda done, total: None


class LiveView(SearchView):
    """A table that is drawn again as results come in, on a terminal."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._live: Live | None = None

    def note(self, text: str) -> None:
        self._console.print(Text(text))

    def trial_ended(self, number: int, outcome: str, reason: str | None) -> None:
        line = self.running[number]
        super().trial_ended(number, outcome, reason)
        text = f"{line.label} {outcome:8} {line.epoch:3}/{line.epochs} epochs  val_acc {line.best_val_acc:.4f}  {line.settings()}"
        self._console.print(Text(text + (f"  {reason}" if reason else ""), style="" if outcome == "finished" else "dim"), soft_wrap=False)

    @contextmanager
    def steps(self, label: str) -> Iterator[Any]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total)

    @contextmanager
    def live(self) -> Iterator[None]:
        with Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True) as self._live:
            yield
        self._live = None

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "pair", "parameters", "epoch", "val_acc", "images/s", "VRAM"):
            table.add_column(name, justify="left" if name in ("trial", "pair", "parameters") else "right", no_wrap=True, overflow="ellipsis")
        for line in sorted(self.running.values(), key=lambda line: line.number):
            table.add_row(
                line.label,
                line.pair,
                line.settings(),
                f"{line.epoch}/{line.epochs}",
                "-" if math.isnan(line.val_acc) else f"{line.val_acc:.4f}",
                "-" if math.isnan(line.images_per_s) else f"{line.images_per_s:.0f}",
                f"{line.vram_mib:.0f} MiB" if line.vram_mib else "-",
            )
        left = self.seconds_left()
        status = f"{self.ended} of {self.num_trials} trials, {describe_seconds(time.monotonic() - self.started)}"
        if left is not None:
            status += f", about {describe_seconds(left)} left"
        return Group(table, Text(self.best_text(), style="bold", overflow="ellipsis", no_wrap=True), Text(status, style="dim"))


def view_for(console: Console) -> SearchView:
    """Returns the live table on a terminal, plain lines elsewhere."""
    return LiveView(console) if console.is_terminal else PlainView()
