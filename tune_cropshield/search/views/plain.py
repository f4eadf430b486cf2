"""A search in lines of text, for logs and pipes; or without any but the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tune_cropshield.files import printable
from tune_cropshield.search.views.view import SearchView, TrialLine


class QuietView(SearchView):
    """Prints the result, and nothing before."""

    def result(self, lines: Sequence[str], facts: dict[str, Any]) -> None:
        for line in lines:
            print(printable(line), flush=True)


class PlainView(QuietView):
    """One line per event: a trial's start, a trial's end."""

    def note(self, text: str) -> None:
        print(printable(text), flush=True)

    def trial_started(self, line: TrialLine) -> None:
        super().trial_started(line)
        begins = f"continues ({line.epoch} of {line.epochs} epochs are done)" if line.epoch else "starts"
        print(f"{line.label} {begins}: {line.settings()} pair={line.pair}", flush=True)

    def trial_ended(self, number: int, outcome: str, reason: str | None) -> None:
        line = self.running[number]
        super().trial_ended(number, outcome, reason)
        left = self.left_text()
        print(
            f"{line.label} {outcome} after {line.epoch} of {line.epochs} epochs"
            + (f", in {line.part}" if line.part else "")
            + f", best {self.goal.name} {line.best_value:.4f}"
            + (f": {reason}" if reason else "")
            + f"; {self.ended} of {self.num_trials} trials"
            + (f", {left}" if left else ""),
            flush=True,
        )

    @contextmanager
    def steps(self, label: str) -> Iterator[Any]:
        print(label, flush=True)
        yield lambda done, total: None
