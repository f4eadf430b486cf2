"""compare.html: searches side by side, with the best value of each over the epochs trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tune_cropshield.config.goals import VAL_ACC, Goal
from tune_cropshield.files import printable, write_text_atomically
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.page import (
    Block,
    Chart,
    KeyFigure,
    Page,
    Section,
    Table,
    Text,
    chart_text,
    render,
    whole_numbers,
)
from tune_cropshield.outcome.side_by_side import Side

COMPARED = "compare.html"


def write_compared(
    folder: Path,
    sides: Sequence[Side],
    results: Sequence[Sequence[str]],
    settings: Sequence[Sequence[str]],
    verdicts: Sequence[str],
) -> Path:
    """Writes compare.html into `folder`, whole or not at all, and returns its path. Raises OSError, DiskFull.

    results, settings: rows of what was found and of what differs, a column for each search behind their name.
    """
    names = [printable(side.name) for side in sides]
    told = [Text(f"{sentence}.") for sentence in verdicts]  # most begin with a search's name
    page = Page(
        title="Searches side by side",
        subtitle=", ".join(names),
        key_figures=[KeyFigure(side.goal.named(side.value), name) for side, name in zip(sides, names, strict=True)]
        if {side.goal for side in sides} != {VAL_ACC}
        else [KeyFigure(words.accuracy(side.val_acc), name) for side, name in zip(sides, names, strict=True)],
        sections=[
            Section("course", "The best value over the epochs trained", [_course(sides, names)]),
            Section("results", "Results", [*told, Table(("", *names), results, "What each search found", alone=True)]),
            Section(
                "settings",
                "Settings",
                [Table(("", *names), settings, "What differs", text_columns=len(names) + 1, alone=True)],
            ),
        ],
    )
    path = folder / COMPARED
    write_text_atomically(path, render(page))
    return path


def _course(sides: Sequence[Side], names: Sequence[str]) -> Block:
    if len(goals := list(dict.fromkeys(side.goal.name for side in sides))) > 1:
        return Text(f"The searches went by different metrics ({', '.join(goals)}), which do not compare.")
    return _chart(sides, names, sides[0].goal)


def _chart(sides: Sequence[Side], names: Sequence[str], goal: Goal) -> Chart:
    import plotly.graph_objects as go

    figure = go.Figure()
    for side, name in zip(sides, names, strict=True):
        figure.add_scatter(
            x=list(side.curve),
            y=list(side.curve.values()),
            name=chart_text(name),
            mode="lines",
            line={"shape": "hv", "width": 2},
        )
    figure.update_layout(xaxis_title="epochs trained, of all trials together", yaxis_title=f"best {goal.name} so far")
    figure.update_layout(showlegend=True)
    whole_numbers(figure, max((max(side.curve, default=1) for side in sides), default=1))
    ends = ", ".join(f"{name}: {goal.text(side.value)}" for side, name in zip(sides, names, strict=True))
    return Chart(
        figure, f"Best {goal.name} so far", f"Line chart, a line for each search; it ends at {ends}.", wide=True
    )
