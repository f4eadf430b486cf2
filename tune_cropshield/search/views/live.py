"""A search as a table on a terminal.

What runs is drawn again as results come in, what has ended scrolls away above it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tune_cropshield.config.units import describe_seconds
from tune_cropshield.search.endings import FINISHED, OUT_OF_MEMORY
from tune_cropshield.search.views.view import SearchView, TrialLine, short
from tune_cropshield.terminal import say

METRIC = "metric"  # the column of what the search goes by, whose head is its name
# name -> width in characters, 76 in all; of a metric with a longer name more
COLUMNS = {
    "trial": 5,
    "state": 10,
    "pair": 7,
    "lr": 8,
    "max_norm": 8,
    "epoch": 7,
    METRIC: 7,
    "images/s": 8,
    "VRAM": 8,
}
LEFT = ("trial", "state", "pair")
SHORT_OUTCOMES = {OUT_OF_MEMORY: "no memory"}  # where a word is wider than its column
IN_COLUMNS = ("lr", "max_norm", "effective_batch", "pair")  # parameters that the table shows of its own
ROOM_FOR_OTHERS = 30  # characters beside the columns, from which on the other parameters are shown too
BAR_WIDTH = 20


class LiveView(SearchView):
    """A table of the running trials, the best so far, and how far the search has come."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._header_shown = False

    def note(self, text: str) -> None:
        say(self._console, text)

    def result(self, lines: Sequence[str], facts: dict[str, Any]) -> None:
        for line in lines:
            say(self._console, line)

    def leave(self) -> None:
        self._console.show_cursor(True)
        self._console.file.write("\n")  # the shell's prompt belongs below the table, not beside its last line
        self._console.file.flush()

    def trial_ended(self, number: int, outcome: str, reason: str | None) -> None:
        line = self.running[number]
        super().trial_ended(number, outcome, reason)
        style = "" if outcome == FINISHED else "dim"
        self._console.print(
            self._table([(line, SHORT_OUTCOMES.get(outcome, outcome), style)], header=not self._header_shown)
        )
        self._header_shown = True
        if reason:
            say(self._console, f"{line.label} {outcome}: {reason}", style="dim")

    @contextmanager
    def steps(self, label: str) -> Iterator[Any]:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(label, total=None, count="")
            yield lambda done, total: progress.update(task, completed=done, total=total, count=f"{done} of {total}")

    @contextmanager
    def live(self) -> Iterator[None]:
        with Live(get_renderable=self._render, console=self._console, refresh_per_second=4, transient=True):
            yield

    def _render(self) -> Group:
        lines = sorted(self.running.values(), key=lambda line: line.number)
        rows = [(line, "running" if line.epoch else "starting", "cyan") for line in lines]
        best = Text(self.best_text(), style="bold", overflow="ellipsis", no_wrap=True)
        table = [self._table(rows, header=True)] if rows else []
        return Group(*table, best, self._status())

    def _status(self) -> Table:
        """Returns a bar, how many trials have ended and how; below it the time spent and the time left."""
        counts, left = self.counts_text(), self.left_text()
        status = Table.grid(padding=(0, 1))
        status.add_column(width=BAR_WIDTH)
        status.add_column(no_wrap=True, overflow="ellipsis")
        status.add_row(
            ProgressBar(self.num_trials, self.ended, width=BAR_WIDTH),
            Text(f"{self.ended} of {self.num_trials} trials" + (f": {counts}" if counts else "")),
        )
        spent = describe_seconds(time.monotonic() - self.started)
        status.add_row("", Text(spent + (f", {left}" if left else ""), style="dim"))
        return status

    def _table(self, rows: Sequence[tuple[TrialLine, str, str]], header: bool) -> Table:
        """Returns (trial, state, style) rows in columns whose widths never change.

        Rows that are printed one by one thus stand below each other.
        """
        names = [name for name in COLUMNS if name != "VRAM" or any(line.vram_mib for line, _, _ in rows)]
        widths = {name: max(COLUMNS[name], len(self.goal.name) if name == METRIC else 0) for name in names}
        used = sum(width + 1 for width in widths.values())
        others = self._console.width - used >= ROOM_FOR_OTHERS
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=header)
        for name in names:
            head = self.goal.name if name == METRIC else name
            table.add_column(head, justify="left" if name in LEFT else "right", width=widths[name], no_wrap=True)
        if others:
            table.add_column("", no_wrap=True, overflow="ellipsis")
        for line, state, style in rows:
            cells = _cells(line, state)
            table.add_row(
                *(Text(cells[name]) for name in names),
                *([Text(line.settings(IN_COLUMNS))] if others else []),
                style=style,
            )
        return table


def _cells(line: TrialLine, state: str) -> dict[str, str]:
    """Returns a trial's row; "-" for what is not known yet."""
    return {
        "trial": line.label,
        "state": line.part.replace(" of ", "/") or state if state == "running" else state,
        "pair": line.pair,
        "lr": _known(line.lr, "{:.3g}"),
        "max_norm": short(line.max_norm),
        "epoch": f"{line.epoch}/{line.epochs}",
        METRIC: _known(line.value if state in ("running", "starting") else line.best_value, "{:.4f}"),
        "images/s": _known(line.images_per_s, "{:.0f}"),
        "VRAM": f"{line.vram_mib / 1024:.1f} GB" if line.vram_mib else "-",
    }


def _known(value: float, form: str) -> str:
    return "-" if math.isnan(value) else form.format(value)
