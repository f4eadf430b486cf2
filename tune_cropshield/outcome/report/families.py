"""What each choice has come to: networks, image sizes, optimizers and other words side by side."""

from __future__ import annotations

import math
import statistics
from typing import Any

from optuna.distributions import CategoricalDistribution

from tune_cropshield.config.branches import spelled
from tune_cropshield.config.domain import NO_BOUND
from tune_cropshield.config.goals import Goal
from tune_cropshield.config.searchable import PLANNED
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.page import Block, Section, Table, Text
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.search.endings import FINISHED, PRUNED
from tune_cropshield.search.trial_settings import PAIR


def section(record: SearchRecord) -> Section | None:
    """Returns a table for each searched choice that is one of words, or decides on the network or on other ranges.

    None where no such choice was searched, or no trial has a result.
    """
    names = [name for name in record.parameter_names if _is_compared(record, name)]
    if not record.with_result or not names:
        return None
    blocks: list[Block] = [
        Text(
            "The best and the median over the trials of each choice, those that were stopped early at what they had "
            "reached. A choice with few trials may be better than it looks here."
        )
    ]
    if record.pruned and any(name in (*PLANNED, "optimizer") for name in names):
        blocks.append(
            Text(
                "Trials are stopped early by what they have reached after equal numbers of epochs. A network that "
                "learns slowly at first is stopped more often than its last epoch would deserve."
            )
        )
    blocks += [_table(record, name) for name in names]
    return Section("choices", "Networks and other choices", blocks)


def _is_compared(record: SearchRecord, name: str) -> bool:
    """Tells whether a parameter's values are words, or stand for networks, sizes or ranges of their own."""
    known = next(trial.frozen.distributions[name] for trial in record.trials if name in trial.parameters)
    if not isinstance(known, CategoricalDistribution) or name == PAIR or len(known.choices) < 2:
        return False
    deciding = (*PLANNED, *(record.space.when if record.space is not None else ()))
    return name in deciding or any(isinstance(value, str) and value != NO_BOUND for value in known.choices)


def _table(record: SearchRecord, name: str) -> Table:
    trials: dict[Any, list[TrialRecord]] = {}
    for trial in record.trials:
        if name in trial.parameters:
            trials.setdefault(trial.parameters[name], []).append(trial)
    goal = record.goal
    ranked = sorted(trials.items(), key=lambda item: -max(goal.rank(_value(trial)) for trial in item[1]))
    rows = [(spelled(value), *_row(of_value, goal)) for value, of_value in ranked]
    absent = len(record.trials) - sum(map(len, trials.values()))
    without = f"; {words.counted(absent, 'trial')} did not have it" if absent else ""
    header = (name, "trials", "finished", "pruned", f"best {goal.name}", "of trial", "median", "seconds per epoch")
    winner = record.winner.parameters.get(name) if record.winner is not None else None
    places = frozenset(place for place, (value, _) in enumerate(ranked) if value == winner)
    return Table(header, rows, f"The trials by {name}{without}", highlighted=places)


def _value(trial: TrialRecord) -> float:
    """Returns the goal's best value of a trial so far; NaN before its first epoch."""
    return math.nan if trial.value is None else trial.value


def _row(trials: list[TrialRecord], goal: Goal) -> tuple[str, ...]:
    with_result = [trial for trial in trials if trial.value is not None]
    best = max(with_result, key=lambda trial: goal.rank(_value(trial)), default=None)
    median = statistics.median(map(_value, with_result)) if with_result else None
    seconds = [float(line["epoch_s"]) for trial in trials for line in trial.lines if "epoch_s" in line]
    return (
        str(len(trials)),
        str(sum(trial.outcome == FINISHED for trial in trials)),
        str(sum(trial.outcome == PRUNED for trial in trials)),
        goal.text(best.value if best is not None else None),
        str(best.number) if best is not None else words.setting(None),
        goal.text(median),
        words.number(statistics.median(seconds) if seconds else None),
    )
