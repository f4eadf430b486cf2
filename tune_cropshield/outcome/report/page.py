"""What a report is made of, and how it becomes one HTML file that needs nothing else.

Text goes through Jinja's autoescaping; text inside charts through `chart_text`, because plotly reads a kind of HTML
there.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tune_cropshield.files import printable
from tune_cropshield.outcome.report.theme import themed

if TYPE_CHECKING:
    from markupsafe import Markup
    from plotly.graph_objects import Figure

HALF_WIDTH_COLUMNS = 5
MOST_TICKS = 10  # of an axis that counts


@dataclass(frozen=True)
class Text:
    """A paragraph. strong: the one to read when only one is read."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Chart:
    """A figure.

    alt: what it shows, for those who cannot see it. caption: how to read it. min_width: px below which it scrolls in
    its frame.
    """

    figure: Figure
    title: str
    alt: str
    caption: str = ""
    height: int = 340
    min_width: int = 0
    wide: bool = False  # takes the whole width of the page, not half

    @property
    def json(self) -> str:
        """The figure as JSON that may stand inside a script element."""
        return str(themed(self.figure, self.height).to_json())


@dataclass(frozen=True)
class Table:
    """Rows of text under headers.

    text_columns: so many of the first are words; the others are numbers, set to the right. folded: closed at first.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str
    text_columns: int = 1
    folded: bool = False
    highlighted: frozenset[int] = frozenset()  # rows that stand out
    alone: bool = False  # nothing stands beside it

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of the page."""
        return self.alone or len(self.header) > HALF_WIDTH_COLUMNS


@dataclass(frozen=True)
class Thumbnail:
    """A small picture. data_uri: the picture itself, None where there is none: then only its lines are shown."""

    data_uri: str | None
    alt: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side."""

    title: str
    thumbnails: Sequence[Thumbnail]


@dataclass(frozen=True)
class Command:
    """A command line to copy."""

    label: str
    text: str


Block = Text | Chart | Table | Gallery | Command


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it. anchor: the address inside the page."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class KeyFigure:
    """A number that is seen first."""

    value: str
    label: str


@dataclass(frozen=True)
class Page:
    """A whole report. notices: sentences that stand before everything else."""

    title: str
    subtitle: str
    key_figures: Sequence[KeyFigure]
    sections: Sequence[Section] = field(default_factory=tuple)
    notices: Sequence[str] = field(default_factory=tuple)


def render(page: Page) -> str:
    """Returns the page as one HTML document, plotly's script inside; opened, it asks the network for nothing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("tune_cropshield.outcome.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["breakable"] = _breakable
    style = environment.loader.get_source(environment, "style.css")[0]  # type: ignore[union-attr]
    return environment.get_template("page.html").render(page=page, style=style, plotlyjs=get_plotlyjs())


def _breakable(text: str) -> Markup:
    """Returns `text`, escaped, with places for line breaks: names of classes and files are long and hold no spaces."""
    from markupsafe import Markup, escape

    lines = "\n".join(map(printable, text.split("\n")))
    return Markup(re.sub(r"([_/])(?=[^_/])", r"\1<wbr>", str(escape(lines))))


def chart_text(text: object) -> str:
    """Returns `text` as plotly shows it letter by letter, whatever it holds."""
    return html.escape(str(text))


def whole_numbers(figure: Figure, highest: float, *, axis: str = "x") -> None:
    """Lets an axis that counts (epochs, trials) from 0 or 1 to `highest` show whole numbers only."""
    step = max(1, math.ceil(highest / MOST_TICKS))
    magnitude = 10 ** (len(str(step)) - 1)
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= step)
    figure.update_layout({f"{axis}axis": {"tick0": 0, "dtick": step, "tickformat": "d"}})
