"""What the winner gets wrong: its confusion matrix, its classes, and its most confident mistakes."""

from __future__ import annotations

import math

from tune_cropshield.files import printable
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.judgement import Judgement, recall_and_precision
from tune_cropshield.outcome.report.page import Block, Chart, Gallery, Section, Table, Text, Thumbnail, chart_text
from tune_cropshield.outcome.report.search_record import SearchRecord
from tune_cropshield.outcome.report.theme import SEQUENTIAL

TITLE = "What the winner gets wrong"
MOST_CONFUSIONS = 5  # named in words
MOST_NUMBERED = 40  # classes; with more, counts in the cells cannot be read
FEW_CLASSES = 8  # with more, the matrix takes the whole width
MOST_LETTERS = 26  # of a class's name beside the matrix
LETTER_PX, CELL_PX = 7, 24


def section(record: SearchRecord, judgement: Judgement | str) -> Section:
    """Returns the section, or why there is none."""
    if isinstance(judgement, str):
        return Section("mistakes", TITLE, [Text(judgement)])
    of_all = words.counted(len(judgement.rows), "validation photograph")
    text = f"Of {of_all} the winner classifies {judgement.num_mistakes} wrongly."
    blocks: list[Block] = [Text(text, strong=True)]
    searched = record.network_accuracy
    if searched is not None and not record.running and not math.isclose(judgement.accuracy, searched, abs_tol=1e-9):
        again = (
            f"Evaluated again for this report, its val_acc is {judgement.accuracy:.4f}; in the search it was "
            f"{searched:.4f}"
        )
        blocks.append(Text(f"{again}: the photographs or the device are not the same."))
    if confusions := _most_confused(judgement):
        blocks.append(Text("Most often confused: " + "; ".join(confusions) + "."))
    blocks += [_matrix(judgement), _classes(judgement)]
    if judgement.mistakes:
        blocks.append(_gallery(judgement))
    return Section("mistakes", TITLE, blocks)


def _most_confused(judgement: Judgement) -> list[str]:
    cells = [
        (count, judgement.classes[true], judgement.classes[taken])
        for true, row in enumerate(judgement.confusion)
        for taken, count in enumerate(row)
        if true != taken and count
    ]
    cells.sort(key=lambda cell: -cell[0])
    return [f"{truth} taken for {taken} ({count})" for count, truth, taken in cells[:MOST_CONFUSIONS]]


def _matrix(judgement: Judgement) -> Chart:
    import plotly.graph_objects as go

    names = [chart_text(name) for name in judgement.classes]
    labels = [chart_text(_short(name)) for name in judgement.classes]
    places = [str(place) for place in range(1, len(names) + 1)]
    shares = [[count / (sum(row) or 1) for count in row] for row in judgement.confusion]
    hover = [
        [f"{truth}<br>taken for {taken}: {count} of {sum(row)}" for taken, count in zip(names, row, strict=True)]
        for truth, row in zip(names, judgement.confusion, strict=True)
    ]
    numbered = len(names) <= MOST_NUMBERED
    figure = go.Figure(
        go.Heatmap(
            z=shares,
            x=places,
            y=places,
            text=[[str(count) if count else "" for count in row] for row in judgement.confusion] if numbered else None,
            texttemplate="%{text}" if numbered else None,
            customdata=hover,
            hovertemplate="%{customdata}<extra></extra>",
            colorscale=SEQUENTIAL,
            zmin=0,
            zmax=1,
            xgap=1,
            ygap=1,
            showscale=False,
        )
    )
    named = {"type": "category", "tickmode": "array", "tickvals": places, "ticktext": labels, "showgrid": False}
    figure.update_xaxes(title="predicted class", side="bottom", tickangle=-90, ticks="", **named)
    figure.update_yaxes(title="true class", autorange="reversed", ticks="", **named)
    figure.update_layout(margin={"t": 8})
    confused = "; ".join(_most_confused(judgement))
    alt = f"Confusion matrix of {len(names)} classes. " + (
        f"Most often confused: {confused}." if confused else "No mistakes."
    )
    caption = "The darker a cell, the larger its share of the true class; the diagonal is right."
    room = max(len(_short(name)) for name in judgement.classes) * LETTER_PX + 40  # beside and below the cells
    side = CELL_PX * len(names)
    wide = len(names) > FEW_CLASSES
    height, width = max(side, 200) + room, side + room if wide else 0
    return Chart(figure, "Confusion matrix", alt, caption, height=height, min_width=width, wide=wide)


def _short(name: str) -> str:
    """Returns a name that fits beside a matrix, without its middle: classes differ in their ends, too.

    The table holds it in full.
    """
    half = (MOST_LETTERS - 1) // 2
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 1 - half]}…{name[-half:]}"


def _classes(judgement: Judgement) -> Table:
    rows = []
    for place, name in enumerate(judgement.classes):
        recall, precision = recall_and_precision(judgement.confusion, place)
        rows.append(
            (
                name,
                str(sum(judgement.confusion[place])),
                words.percent(recall),
                words.percent(precision),
            )
        )
    return Table(
        ("class", "photographs", "recall", "precision"),
        rows,
        "The classes on the validation split",
    )


def _gallery(judgement: Judgement) -> Gallery:
    thumbnails = [
        Thumbnail(
            mistake.data_uri,
            f"{mistake.row.true_class}, taken for {mistake.row.predicted}",
            (
                mistake.row.true_class,
                f"taken for {mistake.row.predicted}",
                f"{words.percent(mistake.row.probability)} sure",
                printable(mistake.row.photograph),
            ),
        )
        for mistake in judgement.mistakes
    ]
    return Gallery("The most confident mistakes", thumbnails)
