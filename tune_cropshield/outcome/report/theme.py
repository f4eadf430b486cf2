"""How charts look: one set of colours and letters for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tune_cropshield.search.endings import FINISHED, PRUNED, RUNNING, UNFINISHED

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

INK, MUTED, GRID = "#22303a", "#5b6b76", "#e3e8ec"
GREEN, AMBER, RED, BLUE, GREY = "#2f7d5b", "#b9770e", "#b23a48", "#2a5d9f", "#a3adb5"
# Told apart by shape too, for eyes and printers that do not see colours.
OUTCOME_COLORS = {FINISHED: GREEN, PRUNED: GREY, UNFINISHED: AMBER, RUNNING: AMBER}
OUTCOME_SYMBOLS = {FINISHED: "circle", PRUNED: "circle-open", UNFINISHED: "diamond-open", RUNNING: "diamond"}
OTHER_COLOR, OTHER_SYMBOL = RED, "x"
SEQUENTIAL = [[0.0, "#eef3f1"], [0.35, "#b4d3c5"], [0.7, "#5d9f83"], [1.0, "#1d5a40"]]
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def outcome_color(outcome: str) -> str:
    """Returns the colour of trials that ended so."""
    return OUTCOME_COLORS.get(outcome, OTHER_COLOR)


def outcome_symbol(outcome: str) -> str:
    """Returns plotly's name of the mark of trials that ended so."""
    return OUTCOME_SYMBOLS.get(outcome, OTHER_SYMBOL)


def themed(figure: Figure, height: int) -> Figure:
    """Returns `figure` in the report's style, `height` px high and as wide as its frame.

    The figure's own title goes: the page has one.
    """
    import plotly.graph_objects as go

    axis = {
        "gridcolor": GRID,
        "linecolor": GRID,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 12, "color": MUTED}},
        "tickfont": {"size": 11, "color": MUTED},
    }
    template = go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": [GREEN, BLUE, AMBER, RED, GREY],
            "hoverlabel": {
                "bgcolor": "white",
                "bordercolor": GRID,
                "font": {"family": FONT, "size": 12, "color": INK},
                "align": "left",
            },
            "xaxis": axis,
            "yaxis": axis,
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": 11, "color": MUTED},
            },
            "margin": {"l": 8, "r": 12, "t": 34, "b": 8},
            "hovermode": "closest",
        }
    )
    return figure.update_layout(template=template, title=None, height=height, width=None, autosize=True)
