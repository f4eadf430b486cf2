"""The clipping section: what the bound did to the gradients, and whether it mattered."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.clipping_facts import (
    NONE,
    ClippedTrial,
    clipped_trials,
    clipping_kind,
    clipping_result,
)
from tune_cropshield.outcome.report.course import hover_text
from tune_cropshield.outcome.report.page import Block, Chart, Section, Table, Text, whole_numbers
from tune_cropshield.outcome.report.search_record import SearchRecord
from tune_cropshield.outcome.report.theme import AMBER, BLUE, INK, RED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_ROWS = 8  # bounds shown one by one; more (a range was searched) are put together


def section(record: SearchRecord) -> Section:
    """Returns what clipping did in sentences, the rates and norms by bound, and a table."""
    title = "Gradient clipping"
    kind = clipping_kind(record)
    trials = clipped_trials(record, kind)
    if not trials:
        return Section("clipping", title, [Text("No trial has a result.")])
    optimizer = str(trials[0].trial.setting("optimizer"))
    first, *rest = clipping_result(trials, kind, optimizer)
    blocks: list[Block] = [Text(first, strong=True), *(Text(sentence) for sentence in rest), Text(_skipped(trials))]
    blocks += [_rates(trials, kind), _norms(trials, kind)]
    if any(trial.skipped_steps for trial in trials):
        blocks.append(_skipped_chart(trials, kind))
    blocks.append(_table(trials, kind))
    return Section("clipping", title, blocks)


def _skipped(trials: Sequence[ClippedTrial]) -> str:
    skipped = sum(trial.skipped_steps for trial in trials)
    if not skipped:
        return "No update was skipped: every gradient was finite."
    concerned = sum(trial.skipped_steps > 0 for trial in trials)
    were = "was" if skipped == 1 else "were"
    return (
        f"{words.counted(skipped, 'update')} in {words.counted(concerned, 'trial')} {were} skipped because a gradient "
        "was not finite; in fp16 a few at the start are normal, until the loss scale has been lowered enough."
    )


def _bounds(trials: Sequence[ClippedTrial]) -> list[float | str]:
    return words.in_order({trial.bound for trial in trials})


def _axis(figure: Figure, trials: Sequence[ClippedTrial], kind: str) -> list[object]:
    """Sets the axis of bounds and returns each trial's place on it.

    A place is a category for each bound, or a number where a range was searched.
    """
    bounds = _bounds(trials)
    if len(bounds) > MOST_ROWS and NONE not in bounds:
        figure.update_xaxes(title=kind, type="log")
        return [trial.bound for trial in trials]
    labels = [words.setting(bound) for bound in bounds]
    figure.update_xaxes(title=kind, type="category", categoryorder="array", categoryarray=labels)
    return [words.setting(trial.bound) for trial in trials]


def _points(
    figure: Figure,
    trials: Sequence[ClippedTrial],
    x: list[object],
    y: list[float],
    name: str,
    color: str,
    symbol: str = "circle",
) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        cliponaxis=False,
        name=name,
        marker={"color": color, "symbol": symbol, "size": 8, "opacity": 0.75},
        text=[hover_text(trial.trial) for trial in trials],
        hovertemplate="%{y:.4g}<br>%{text}<extra></extra>",
    )


def _rates(trials: Sequence[ClippedTrial], kind: str) -> Chart:
    import plotly.graph_objects as go

    figure = go.Figure()
    _points(figure, trials, _axis(figure, trials, kind), [trial.clip_rate for trial in trials], "clip_rate", AMBER)
    figure.update_yaxes(title="share of updates clipped", range=[-0.04, 1.04], tickformat=".0%")
    alt = f"Scatter chart of each trial's clip rate by {kind}: " + _spoken(trials, "clip_rate")
    return Chart(figure, f"Clip rate by {kind}", alt, "Each point is a trial: the mean over its epochs.")


def _norms(trials: Sequence[ClippedTrial], kind: str) -> Chart:
    import plotly.graph_objects as go

    figure = go.Figure()
    x = _axis(figure, trials, kind)
    _points(figure, trials, x, [trial.norm_p50 for trial in trials], "grad_norm_p50", BLUE)
    _points(figure, trials, x, [trial.norm_p95 for trial in trials], "grad_norm_p95", RED, "triangle-up")
    if kind == "max_norm" and (numbers := [bound for bound in _bounds(trials) if not isinstance(bound, str)]):
        places = numbers if figure.layout.xaxis.type == "log" else [words.setting(bound) for bound in numbers]
        marker = {"symbol": "line-ew", "size": 26, "line": {"width": 2, "color": INK}}
        figure.add_scatter(
            x=places,
            y=numbers,
            mode="markers",
            name="the bound",
            marker=marker,
            hovertemplate="bound %{y}<extra></extra>",
        )
    figure.update_yaxes(title="gradient norm before clipping", type="log")
    alt = f"Scatter chart of gradient norms before clipping by {kind}, medians and 95 % quantiles. Medians: " + _spoken(
        trials, "norm_p50"
    )
    return Chart(
        figure,
        f"Gradient norms by {kind}",
        alt,
        "Updates whose gradient norm lies above the bound were shortened. Each point is the median over a "
        "trial's epochs.",
    )


def _skipped_chart(trials: Sequence[ClippedTrial], kind: str) -> Chart:
    import plotly.graph_objects as go

    figure = go.Figure()
    _points(
        figure,
        trials,
        _axis(figure, trials, kind),
        [trial.skipped_steps for trial in trials],
        "skipped_steps",
        RED,
        "x",
    )
    figure.update_yaxes(title="skipped updates", rangemode="tozero")
    whole_numbers(figure, max(trial.skipped_steps for trial in trials), axis="y")
    return Chart(
        figure,
        f"Skipped updates by {kind}",
        f"Scatter chart of skipped updates by {kind}: " + _spoken(trials, "skipped_steps"),
    )


def _spoken(trials: Sequence[ClippedTrial], name: str) -> str:
    grouped: dict[float | str, list[float]] = defaultdict(list)
    for trial in trials:
        grouped[trial.bound].append(getattr(trial, name))
    parts = [
        f"{words.setting(bound)}: {words.number(statistics.median(grouped[bound]))}"
        for bound in _bounds(trials)[:MOST_ROWS]
    ]
    return ", ".join(parts) + "."


def _table(trials: Sequence[ClippedTrial], kind: str) -> Table:
    rows, goal = [], trials[0].goal
    for label, group in _groups(trials):
        rates, lows, highs = (
            [getattr(trial, name) for trial in group] for name in ("clip_rate", "norm_p50", "norm_p95")
        )
        rows.append(
            (
                label,
                str(len(group)),
                words.percent(statistics.median(rates)),
                words.number(statistics.median(lows)),
                words.number(statistics.median(highs)),
                str(sum(trial.skipped_steps for trial in group)),
                goal.text(statistics.median(trial.value for trial in group)),
                goal.text(max((trial.value for trial in group), key=goal.rank)),
            )
        )
    header = (
        kind,
        "trials",
        "clip_rate",
        "grad_norm_p50",
        "grad_norm_p95",
        "skipped_steps",
        f"median {goal.name}",
        f"best {goal.name}",
    )
    return Table(header, rows, f"By {kind}: medians over the trials; skipped updates are totals")


def _groups(trials: Sequence[ClippedTrial]) -> list[tuple[str, list[ClippedTrial]]]:
    """Returns the trials by bound, or by quarters of the bounds where there are many."""
    bounds = _bounds(trials)
    if len(bounds) <= MOST_ROWS:
        return [(words.setting(bound), [trial for trial in trials if trial.bound == bound]) for bound in bounds]
    bounded = [trial for bound in bounds for trial in trials if trial.bound == bound != NONE]
    cuts = [len(bounded) * quarter // 4 for quarter in range(5)]
    groups = [bounded[low:high] for low, high in itertools.pairwise(cuts)]
    named = [
        (f"{words.setting(group[0].bound)} to {words.setting(group[-1].bound)}", group) for group in groups if group
    ]
    unbounded = [trial for trial in trials if trial.bound == NONE]
    return [*named, *([(NONE, unbounded)] if unbounded else [])]
