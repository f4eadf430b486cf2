"""How the search went: its history, and every trial's curve with those that were pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import optuna

from tune_cropshield.config.goals import Goal, goal_of
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.page import Block, Chart, Section, Text, chart_text, whole_numbers
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.outcome.report.theme import BLUE, GREEN, INK, MUTED, outcome_color, outcome_symbol
from tune_cropshield.outcome.settings_in_words import fine_tuning
from tune_cropshield.search.endings import PRUNED, STOPPED_BY_HAND
from tune_cropshield.search.journal import quiet_optuna

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_NAMED = 5  # trials that failed


def section(record: SearchRecord) -> Section:
    """Returns the optimisation history and the intermediate curves."""
    title = "The course of the search"
    if not record.with_result:
        return Section("course", title, [Text("No trial has finished an epoch.")])
    blocks: list[Block] = [Text(_endings(record)), _history(record), _curves(record)]
    return Section("course", title, blocks)


def _endings(record: SearchRecord) -> str:
    trials = words.counted(len(record.trials), "trial")
    parts = [f"{trials}: {len(record.complete)} trained to the end, {len(record.pruned)} pruned"]
    if by_hand := sum(trial.reason == STOPPED_BY_HAND for trial in record.pruned):
        parts[0] += f" ({by_hand} of them {STOPPED_BY_HAND})"
    if record.unfinished:
        parts.append(
            f"{len(record.unfinished)} {'running' if record.running else 'interrupted'}, counted as far as they got"
        )
    text = ", ".join(parts) + "."
    for trial in record.failed[:MOST_NAMED]:
        text += f" Trial {trial.number} did not finish ({trial.outcome}{': ' + trial.reason if trial.reason else ''})."
    if len(record.failed) > MOST_NAMED:
        text += f" {len(record.failed) - MOST_NAMED} more did not finish either; the table of all trials names them."
    return text


def _history(record: SearchRecord) -> Chart:
    with quiet_optuna():
        figure = optuna.visualization.plot_optimization_history(
            record.study_of_results, target_name=f"best {record.goal.name}"
        )
    figure.data = [trace for trace in figure.data if trace.mode != "markers"]  # the trials, without their outcomes
    figure.update_traces(line={"color": INK, "width": 1.5, "shape": "hv"}, name="best so far", mode="lines")
    add_trials(
        figure, record, [trial.number for trial in record.with_result], [trial.value for trial in record.with_result]
    )
    reference = record.reference.value if record.reference is not None else None
    if reference is not None:
        figure.add_hline(reference, line={"color": BLUE, "width": 1, "dash": "dash"})
    figure.update_layout(xaxis_title="trial", yaxis_title=f"best {record.goal.name}", showlegend=True)
    whole_numbers(figure, record.with_result[-1].number)
    best = record.goal.text(record.winner.value if record.winner is not None else None)
    alt = (
        f"Scatter chart of each trial's best {_called(record.goal)} by trial number, with the best so far as a line "
        f"that ends at {best}."
    )
    caption = ""
    if record.reference is not None:
        trained = words.counted(len(record.reference.lines), "epoch")
        caption = f"The dashed line is the {record.reference_name}, {record.reference.outcome} after {trained}."
    return Chart(figure, "Optimisation history", alt, caption)


def add_trials(figure: Figure, record: SearchRecord, x: Sequence[object], y: Sequence[object]) -> None:
    """Adds a point for each trial that has a result, x and y in their order, one trace for each way to end."""
    trials = record.with_result
    for outcome in dict.fromkeys(trial.outcome for trial in trials):
        chosen = [index for index, trial in enumerate(trials) if trial.outcome == outcome]
        figure.add_scatter(
            x=[x[index] for index in chosen],
            y=[y[index] for index in chosen],
            mode="markers",
            name=outcome,
            marker={"color": outcome_color(outcome), "symbol": outcome_symbol(outcome), "size": 8},
            text=[hover_text(trials[index]) for index in chosen],
            hovertemplate="%{text}<extra></extra>",
        )


def hover_text(trial: TrialRecord) -> str:
    """Returns what is shown of a trial under the pointer."""
    ended = f"trial {trial.number}, {trial.outcome} after {words.counted(len(trial.lines), 'epoch')}"
    ended += f" ({trial.reason})" if trial.reason else ""
    settings = [f"{name} {words.setting(value)}" for name, value in trial.parameters.items()]
    worth = words.named_values(goal_of(trial.lines), trial.best or {})
    return "<br>".join(chart_text(line) for line in (ended, worth, *settings))


def _called(goal: Goal) -> str:
    return "validation accuracy" if goal.is_accuracy else goal.name


def _curves(record: SearchRecord) -> Chart:
    with quiet_optuna():
        figure = optuna.visualization.plot_intermediate_values(record.study)
    by_name = {f"Trial{trial.number}": trial for trial in record.trials}
    winner = record.winner.number if record.winner is not None else None
    reference = record.reference.number if record.reference is not None else None
    for trace in figure.data:
        trial = by_name[trace.name]
        special = {winner: (GREEN, "solid", "winner"), reference: (BLUE, "dash", record.reference_name)}.get(
            trial.number
        )
        color, dash, name = special or (MUTED, "solid", f"trial {trial.number}")
        trace.update(
            mode="lines+markers" if len(trace.x) == 1 else "lines", marker={"size": 4, "color": color}, name=name
        )
        trace.update(
            line={"color": color, "dash": dash, "width": 2.5 if special else 1},
            opacity=1 if special else 0.45,
            showlegend=bool(special),
        )
    figure.data = sorted(figure.data, key=lambda trace: bool(trace.showlegend))  # the two that stand out are drawn last
    ends = [
        (max(trial.frozen.intermediate_values), trial) for trial in record.pruned if trial.frozen.intermediate_values
    ]
    figure.add_scatter(
        x=[epoch for epoch, _ in ends],
        y=[trial.frozen.intermediate_values[epoch] for epoch, trial in ends],
        mode="markers",
        name=PRUNED,
        marker={"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": INK}},
        text=[hover_text(trial) for _, trial in ends],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_layout(xaxis_title="epoch", yaxis_title=f"best {record.goal.name} so far", showlegend=True)
    whole_numbers(figure, max(line["epoch"] for trial in record.with_result for line in trial.lines))
    steps = record.space.search.pruning_steps if record.space is not None else ()
    for epoch in steps:
        figure.add_vline(epoch, line={"color": MUTED, "width": 1, "dash": "dot"})
    caption = ""
    if steps:
        after = f"epoch{'s' if len(steps) > 1 else ''} {', '.join(map(str, steps))}"
        caption = f"Dotted lines: the pruning steps, after {after}. "
    caption += "Crosses: where trials were pruned, that is, stopped early."
    if record.space is not None and (apart := fine_tuning(record.space.trial)):
        caption += f" In each trial, {apart}."
    alt = (
        f"Line chart of each trial's best {_called(record.goal)} so far over epochs; crosses mark the {len(ends)} "
        "trials that were pruned."
    )
    return Chart(figure, "Intermediate curves", alt, caption)
