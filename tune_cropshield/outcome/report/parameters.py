"""What the searched parameters have to do with the accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import optuna

from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.course import add_trials
from tune_cropshield.outcome.report.page import Block, Chart, Section, Text, chart_text, whole_numbers
from tune_cropshield.outcome.report.parallel import parallel_coordinates
from tune_cropshield.outcome.report.search_record import SearchRecord
from tune_cropshield.outcome.report.theme import GREEN
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
    names = [name for name in record.parameter_names if any(name in trial.parameters for trial in record.with_result)]
    if not record.with_result or not names:
        return Section(
            "parameters",
            title,
            [Text("There is nothing to compare: no trial has a result, or no parameter was searched.")],
        )
    blocks: list[Block] = []
    if len(names) > 1:
        blocks.append(parallel_coordinates(record, names[:MOST_AXES]))
    blocks.append(_importances(record))
    ordered = sorted(names, key=lambda name: SLICED_FIRST.index(name) if name in SLICED_FIRST else len(SLICED_FIRST))
    blocks += [_slice(record, name) for name in ordered[:MOST_SLICES]]
    return Section("parameters", title, blocks)


def _importances(record: SearchRecord) -> Block:
    complete = record.complete
    if len(complete) < FEW_COMPLETE:
        return Text(
            f"How much each parameter matters is not known yet: this needs at least {FEW_COMPLETE} trials that were "
            f"trained to the end, and there {'is' if len(complete) == 1 else 'are'} {len(complete)}."
        )
    try:
        with quiet_optuna():
            figure = optuna.visualization.plot_param_importances(record.study, target_name=record.goal.name)
    except (ValueError, RuntimeError) as error:  # all equally good, or all parameters alike
        return Text(f"How much each parameter matters cannot be estimated from these trials: {error}.")
    figure.update_traces(marker={"color": GREEN}, cliponaxis=False)
    figure.update_layout(xaxis_title="share of the importance", yaxis_title=None)
    shares = dict(zip(figure.data[0].y, figure.data[0].x, strict=True))
    ranked = ", ".join(
        f"{name} {words.percent(share)}" for name, share in sorted(shares.items(), key=lambda item: -item[1])
    )
    caption = (
        f"PED-ANOVA, from the {len(complete)} trials that were trained to the end. With fewer than about 50, trust "
        "the order, not the shares."
    )
    return Chart(figure, "Importances", f"Bar chart of the parameters' importances: {ranked}.", caption)


def _slice(record: SearchRecord, name: str) -> Chart:
    with quiet_optuna():
        figure = optuna.visualization.plot_slice(
            record.study_of_results, params=[name], target_name=f"best {record.goal.name}"
        )
    _split_by_outcome(figure, record, name)
    best = record.winner.parameters.get(name) if record.winner is not None else None
    called = "validation accuracy" if record.goal.is_accuracy else record.goal.name
    alt = f"Scatter chart of each trial's best {called} against {name}; the winner has {words.setting(best)}."
    return Chart(figure, name, alt)


def _split_by_outcome(figure: Figure, record: SearchRecord, name: str) -> None:
    """Replaces Optuna's points, coloured by number, by ones that tell how the trials ended; its axis stays."""
    figure.data = []
    values: list[Any] = [trial.parameters.get(name) for trial in record.with_result]
    tried = [value for value in values if value is not None]
    if figure.layout.xaxis.type == "category":
        known = next(trial.frozen.distributions for trial in record.with_result if name in trial.parameters)
        choices = known[name].choices  # type: ignore[attr-defined]
        values = [chart_text(words.setting(value)) if value is not None else None for value in values]
        figure.update_xaxes(categoryarray=[chart_text(words.setting(choice)) for choice in words.in_order(choices)])
    elif figure.layout.xaxis.type != "log" and all(isinstance(value, int) for value in tried):
        whole_numbers(figure, max(tried))
    add_trials(figure, record, values, [trial.value for trial in record.with_result])
    figure.update_layout(xaxis_title=name, yaxis_title=f"best {record.goal.name}", showlegend=True)
    if figure.layout.xaxis.type == "log":
        figure.update_xaxes(dtick=1, minor={"showgrid": True, "gridcolor": "#f1f4f6"}, tickformat="~r")
