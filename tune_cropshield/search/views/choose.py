"""How a command shows what it does: a table on a terminal, lines in a pipe, or what was asked for."""

from __future__ import annotations

from rich.console import Console

from tune_cropshield.search.views.json_lines import JsonLinesView
from tune_cropshield.search.views.live import LiveView
from tune_cropshield.search.views.plain import PlainView, QuietView
from tune_cropshield.search.views.view import SearchView


def view_for(console: Console, quiet: bool = False, json_lines: bool = False) -> SearchView:
    """Returns the view that was asked for; left open, the live table on a terminal and plain lines elsewhere."""
    if json_lines:
        return JsonLinesView()
    if quiet:
        return QuietView()
    return LiveView(console) if console.is_terminal else PlainView()
