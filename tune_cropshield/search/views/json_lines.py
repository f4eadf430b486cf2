"""A search as JSON lines on stdout, for programs: one object per event, and nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tune_cropshield.search.endings import METRIC
from tune_cropshield.search.views.view import SearchView, TrialLine
from tune_cropshield.training.metrics import METRIC_NAMES


class JsonLinesView(SearchView):
    """Every line holds `event`, and `trial` where it is about one.

    begin (trials, ended), started (parameters, pair, lr, max_norm, epochs), epoch (the epoch's metrics and
    best_val_acc; of a trial in parts also its part, from 0), best (best_val_acc, epoch), the ends finished, pruned,
    diverged, out_of_memory, failed and stopped (epoch, best_val_acc, reason), preparing and note (text), and result at
    the very end. Where the search goes by another metric, best_METRIC stands beside best_val_acc, which is then the
    accuracy of the epoch that is best by that metric. What is not known or not finite is null.
    """

    def begin(self, num_trials: int, num_ended: int) -> None:
        super().begin(num_trials, num_ended)
        write_line("begin", trials=num_trials, ended=num_ended)

    def note(self, text: str) -> None:
        write_line("note", text=text)

    def result(self, lines: Sequence[str], facts: dict[str, Any]) -> None:
        write_line("result", **facts)

    def trial_started(self, line: TrialLine) -> None:
        super().trial_started(line)
        settings = {
            "parameters": line.parameters,
            "pair": line.pair,
            "lr": line.lr,
            "max_norm": line.max_norm,
            "epochs": line.epochs,
        }
        write_line("started", trial=line.number, **settings)

    def epoch_done(self, number: int, metrics: dict[str, Any]) -> None:
        names = dict.fromkeys([*METRIC_NAMES, self.goal.name])
        told = {name: metrics.get(name) for name in names} | self._best(metrics[METRIC], metrics.get("best_val_acc"))
        part = {"part": metrics["part"]} if self.running[number].parts > 1 else {}
        write_line("epoch", trial=number, **part, **told)
        super().epoch_done(number, metrics)

    def new_best(self, line: TrialLine) -> None:
        write_line("best", trial=line.number, epoch=line.best_epoch, **self._best(line.best_value, line.val_acc))

    def trial_ended(self, number: int, outcome: str, reason: str | None) -> None:
        line = self.running[number]
        super().trial_ended(number, outcome, reason)
        write_line(
            outcome.replace(" ", "_"),
            trial=number,
            epoch=line.epoch,
            **self._best(line.best_value, line.val_acc),
            reason=reason,
        )

    def _best(self, value: float, val_acc: float | None) -> dict[str, float | None]:
        """Returns what is told of a best epoch: the accuracy, and the goal's value where it is another."""
        return {"best_val_acc": val_acc} | {f"best_{self.goal.name}": value}

    @contextmanager
    def steps(self, label: str) -> Iterator[Any]:
        write_line("preparing", text=label)
        yield lambda done, total: None


def write_line(event: str, **values: Any) -> None:
    """Prints one event at once."""
    print(json.dumps({"event": event, **_finite(values)}, allow_nan=False), flush=True)


def _finite(value: Any) -> Any:
    """Returns `value` with null for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
