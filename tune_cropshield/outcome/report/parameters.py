"""What the searched parameters have to do with the accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import optuna
from plotly.colors import sample_colorscale

from tune_cropshield.outcome.report import words
from tune_cropshield.outcome.report.course import add_trials
from tune_cropshield.outcome.report.page import Block, Chart, Section, Text, chart_text
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.outcome.report.theme import BLUE, GREEN, MUTED, SEQUENTIAL
from tune_cropshield.search.journal import quiet_optuna
from tune_cropshield.search.trial_settings import EFFECTIVE_BATCH, PAIR

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FEW_COMPLETE = 8  # importances of fewer complete trials change with every further one
SLICED_FIRST = ("lr", "max_norm", EFFECTIVE_BATCH, PAIR)
MOST_SLICES = 8
MOST_AXES = 8  # of the parallel coordinates


def section(record: SearchRecord) -> Section:
    """Returns parallel coordinates, importances and slices."""
    title = "The parameters"
    names = [name for name in record.parameter_names if all(name in trial.parameters for trial in record.with_result)]
    if not record.with_result or not names:
        return Section(
            "parameters", title, [Text("There is nothing to compare: no trial has a result, or nothing was searched.")]
        )
    blocks: list[Block] = []
    if len(names) > 1:
        blocks.append(_parallel(record, names[:MOST_AXES]))
    blocks.append(_importances(record))
    ordered = sorted(names, key=lambda name: SLICED_FIRST.index(name) if name in SLICED_FIRST else len(SLICED_FIRST))
    blocks += [_slice(record, name) for name in ordered[:MOST_SLICES]]
    return Section("parameters", title, blocks)


def _parallel(record: SearchRecord, names: list[str]) -> Chart:
    with quiet_optuna():
        figure = optuna.visualization.plot_parallel_coordinate(record.judged_study, params=names, target_name="val_acc")
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    for trace, trial in zip(lines, _order_of_lines(record, names), strict=True):
        shade = 0.15 + 0.85 * _place(trial.accuracy, record)
        trace.line.update(color=sample_colorscale(SEQUENTIAL, shade)[0])
        if record.winner is not None and trial.number in (record.winner.number, record.guide.number):
            winner = trial.number == record.winner.number
            trace.update(
                line={"color": GREEN if winner else BLUE, "width": 3, "dash": "solid" if winner else "dash"},
                opacity=1,
                showlegend=True,
            )
            trace.update(name=f"winner (trial {trial.number})" if winner else "the guide's setting (trial 0)")
    figure.data = sorted(
        lines, key=lambda trace: bool(trace.showlegend)
    )  # without the colour bar; what stands out is drawn last
    for annotation in figure.layout.annotations:
        annotation.update(
            text=_plain(annotation.text), font={"size": 11, "color": MUTED}, bgcolor="rgba(255,255,255,0.85)"
        )
    legend = {"x": 0, "xanchor": "left", "y": -0.02, "yanchor": "top"}
    figure.update_layout(showlegend=True, xaxis_side="top", legend=legend, margin={"l": 52, "r": 24, "t": 28, "b": 24})
    alt = (
        f"Parallel coordinates: a line per trial through {', '.join(names)} and its accuracy, the darker the more "
        "accurate."
    )
    caption = "A line is a trial, the darker the more accurate."
    return Chart(figure, "Parallel coordinates", alt, caption, height=380, min_width=110 * (len(names) + 1), wide=True)


def _order_of_lines(record: SearchRecord, names: list[str]) -> list[TrialRecord]:
    """Returns the trials in the order in which Optuna draws them, which depends on their parameters: asked for by
    drawing their numbers.
    """
    with quiet_optuna():
        numbers = optuna.visualization.plot_parallel_coordinate(
            record.judged_study, params=names, target=lambda trial: trial.number, target_name="trial"
        )
    by_number = {trial.number: trial for trial in record.with_result}
    low, high = min(by_number), max(by_number)
    return [by_number[round(low + trace.y[0] * (high - low))] for trace in numbers.data if trace.mode == "lines"]


def _place(accuracy: float | None, record: SearchRecord) -> float:
    """Returns where an accuracy lies between the worst (0) and the best (1)."""
    known = [trial.accuracy or 0.0 for trial in record.with_result]
    low, high = min(known), max(known)
    return ((accuracy or 0.0) - low) / (high - low) if high > low else 1.0


def _plain(label: str) -> str:
    """Returns a choice without the quotes in which Optuna shows strings."""
    return chart_text(label[1:-1] if len(label) > 1 and label[0] == label[-1] == "'" else label)


def _importances(record: SearchRecord) -> Block:
    complete = record.complete
    if len(complete) < FEW_COMPLETE:
        return Text(
            f"How much each parameter matters cannot be told: that needs at least {FEW_COMPLETE} trials that were "
            "trained to the end, and there "
            f"{'is' if len(complete) == 1 else 'are'} {len(complete)}."
        )
    try:
        with quiet_optuna():
            figure = optuna.visualization.plot_param_importances(record.study, target_name="val_acc")
    except (ValueError, RuntimeError) as error:  # all equally good, or all parameters alike
        return Text(f"How much each parameter matters cannot be told from these trials: {error}.")
    figure.update_traces(marker={"color": GREEN}, cliponaxis=False)
    figure.update_layout(xaxis_title="share of the importance", yaxis_title=None)
    shares = dict(zip(figure.data[0].y, figure.data[0].x, strict=True))
    ranked = ", ".join(
        f"{name} {words.percent(share)}" for name, share in sorted(shares.items(), key=lambda item: -item[1])
    )
    caption = (
        f"PED-ANOVA, from the {len(complete)} trials that were trained to the end. With fewer than some 50, read "
        "the order, not the shares."
    )
    return Chart(figure, "Importances", f"Bar chart of the parameters' importances: {ranked}.", caption)


def _slice(record: SearchRecord, name: str) -> Chart:
    with quiet_optuna():
        figure = optuna.visualization.plot_slice(record.judged_study, params=[name], target_name="best val_acc")
    _split_by_outcome(figure, record, name)
    best = record.winner.parameters.get(name) if record.winner is not None else None
    alt = (
        f"Scatter chart of each trial's best validation accuracy against {name}; the winner has {words.setting(best)}."
    )
    return Chart(figure, name, alt)


def _split_by_outcome(figure: Figure, record: SearchRecord, name: str) -> None:
    """Replaces Optuna's points, coloured by number, by ones that tell how the trials ended; its axis stays."""
    figure.data = []
    values: list[object] = [trial.parameters[name] for trial in record.with_result]
    if figure.layout.xaxis.type == "category":
        choices = next(trial.frozen.distributions[name] for trial in record.with_result).choices  # type: ignore[attr-defined]
        values = [chart_text(words.setting(value)) for value in values]
        figure.update_xaxes(categoryarray=[chart_text(words.setting(choice)) for choice in words.in_order(choices)])
    add_trials(figure, record, values, [trial.accuracy for trial in record.with_result])
    figure.update_layout(xaxis_title=name, yaxis_title="best val_acc", showlegend=True)
    if figure.layout.xaxis.type == "log":
        figure.update_xaxes(dtick=1, minor={"showgrid": True, "gridcolor": "#f1f4f6"}, tickformat="~r")
