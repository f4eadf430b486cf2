"""Parallel coordinates: an axis for each parameter and the accuracy, a line through all of them for each trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import CategoricalDistribution
from plotly.colors import sample_colorscale
from plotly.graph_objects import Figure

from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.course import hover_text
from tune_cropshield.outcome.report.page import Chart, chart_text
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.outcome.report.theme import BLUE, GREEN, GREY, MUTED, SEQUENTIAL

NUM_TICKS = 5  # of an axis with an even scale
CLOSEST_TICKS = 0.07  # of an axis' length: labels that are closer would lie on each other
PALEST = 0.15  # place on the scale of colours of the worst trial's line, which must still be seen


@dataclass(frozen=True)
class Axis:
    """One vertical axis.

    places: of each trial, from 0 (bottom) to 1 (top), None where it does not have the parameter; ticks: (place, label).
    """

    name: str
    places: Sequence[float | None]
    ticks: Sequence[tuple[float, str]]


def parallel_coordinates(record: SearchRecord, names: Sequence[str]) -> Chart:
    """Returns the chart of the trials that have a result. A line passes by the axis of a parameter that it has not.

    A line is the darker the more accurate its trial is. The reference setting and the winner stand out, and are drawn
    last.
    """
    goal = record.goal
    trials = sorted(
        (trial for trial in record.with_result if trial.value is not None and math.isfinite(trial.value)),
        key=lambda trial: goal.rank(trial.value or 0.0),
    )
    axes = [
        numeric_axis(goal.name, [trial.value or 0.0 for trial in trials], log=False),
        *(_parameter_axis(name, trials) for name in names),
    ]
    special: dict[int, tuple[str, str, str]] = {}
    if record.reference is not None:
        special[record.reference.number] = (f"{record.reference_name} (trial 0)", BLUE, "dash")
    if record.winner is not None:
        special[record.winner.number] = (f"winner (trial {record.winner.number})", GREEN, "solid")
    figure = Figure()
    plain = [index for index, trial in enumerate(trials) if trial.number not in special]
    standing_out = [index for number in special for index, trial in enumerate(trials) if trial.number == number]
    for index in [*plain, *standing_out]:
        trial = trials[index]
        place = axes[0].places[index] or 0.0
        good = place if goal.higher_is_better else 1 - place
        shade = sample_colorscale(SEQUENTIAL, PALEST + (1 - PALEST) * good)[0]
        name, color, dash = special.get(trial.number, ("", shade, "solid"))
        figure.add_scatter(
            x=list(range(len(axes))),
            y=[axis.places[index] for axis in axes],
            mode="lines",
            connectgaps=True,
            name=name,
            showlegend=bool(name),
            line={"color": color, "dash": dash, "width": 3 if name else 1.2},
            opacity=1 if name else 0.55,
            text=[hover_text(trial)] * len(axes),
            hovertemplate="%{text}<extra></extra>",
        )
    _draw_axes(figure, axes)
    better = "more accurate" if goal.is_accuracy else "better"
    alt = (
        f"Parallel coordinates: a line per trial through its {goal.called} and "
        f"{', '.join(names)}, the darker the {better}."
    )
    caption = f"Each line is a trial: the darker, the {better}."
    return Chart(figure, "Parallel coordinates", alt, caption, height=380, min_width=110 * len(axes), wide=True)


def _parameter_axis(name: str, trials: Sequence[TrialRecord]) -> Axis:
    having = [trial for trial in trials if name in trial.parameters]
    values = [trial.parameters[name] for trial in having]
    distribution = having[0].frozen.distributions[name]
    if isinstance(distribution, CategoricalDistribution):
        axis = choice_axis(name, values, distribution.choices)
    else:
        axis = numeric_axis(name, values, log=distribution.log)  # type: ignore[attr-defined]
    places = dict(zip((trial.number for trial in having), axis.places, strict=True))
    return Axis(name, [places.get(trial.number) for trial in trials], axis.ticks)


def choice_axis(name: str, values: Sequence[Any], choices: Sequence[Any]) -> Axis:
    """Returns an axis of the `choices` that were tried, at even distances: numbers from the bottom, then words."""
    tried = [choice for choice in words.in_order(choices) if choice in values]
    place = {choice: number / max(len(tried) - 1, 1) for number, choice in enumerate(tried)}
    return Axis(name, [place[value] for value in values], [(place[choice], words.setting(choice)) for choice in tried])


def numeric_axis(name: str, values: Sequence[float], log: bool) -> Axis:
    """Returns an axis of numbers from the smallest to the largest value.

    Args:
        log: equal factors, not equal differences, have equal lengths; the ticks are then powers of ten and both ends.
    """
    low, high = min(values), max(values)
    if low == high:
        return Axis(name, [0.5] * len(values), [(0.5, words.number(low))])
    scale = math.log10 if log else float
    bottom, length = scale(low), scale(high) - scale(low)
    places = [(scale(value) - bottom) / length for value in values]
    if not log:
        ticks = [low + (high - low) * number / (NUM_TICKS - 1) for number in range(NUM_TICKS)]
        if all(isinstance(value, int) for value in values):
            ticks = sorted({round(tick) for tick in ticks})
        return Axis(name, places, [((tick - low) / (high - low), words.number(tick)) for tick in ticks])
    powers = [10.0**exponent for exponent in range(math.ceil(bottom), math.floor(bottom + length) + 1)]
    inner = [((scale(power) - bottom) / length, words.number(power)) for power in powers]
    inner = [(place, label) for place, label in inner if CLOSEST_TICKS < place < 1 - CLOSEST_TICKS]
    return Axis(name, places, [(0.0, words.number(low)), *inner, (1.0, words.number(high))])


def _draw_axes(figure: Figure, axes: Sequence[Axis]) -> None:
    for x, axis in enumerate(axes):
        figure.add_shape(type="line", x0=x, x1=x, y0=0, y1=1, line={"color": GREY, "width": 1}, layer="below")
        for place, label in axis.ticks:
            figure.add_annotation(
                x=x,
                y=place,
                text=chart_text(label),
                xanchor="right",
                xshift=-4,
                showarrow=False,
                font={"size": 11, "color": MUTED},
                bgcolor="rgba(255,255,255,0.85)",
            )
    figure.update_xaxes(
        side="top",
        tickvals=list(range(len(axes))),
        ticktext=[chart_text(axis.name) for axis in axes],
        range=(-0.2, len(axes) - 0.8),
        showgrid=False,
    )
    figure.update_yaxes(visible=False, range=(-0.08, 1.08), fixedrange=True)
    legend = {"x": 0, "xanchor": "left", "y": -0.02, "yanchor": "top"}
    figure.update_layout(showlegend=True, legend=legend, margin={"l": 52, "r": 24, "t": 28, "b": 24})
