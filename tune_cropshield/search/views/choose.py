"""How a command shows what it does: a table on a terminal, lines in a pipe, or what was asked for."""

from __future__ import annotations

from importlib.util import find_spec

from rich.console import Console

from tune_cropshield.search.views.json_lines import JsonLinesView
from tune_cropshield.search.views.live import LiveView
from tune_cropshield.search.views.plain import PlainView, QuietView
from tune_cropshield.search.views.view import SearchView


def view_for(console: Console, quiet: bool = False, json_lines: bool = False) -> SearchView:
    """Returns the view that was asked for; left open, the live table on a terminal and plain lines elsewhere.

    A Jupyter notebook shows the table too, where ipywidgets is installed: rich cannot draw it again without.
    """
    if json_lines:
        return JsonLinesView()
    if quiet:
        return QuietView()
    in_notebook = console.is_jupyter and find_spec("ipywidgets") is not None
    return LiveView(console) if console.is_terminal or in_notebook else PlainView()
