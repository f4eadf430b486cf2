"""`report`: a search as one HTML file."""

from __future__ import annotations

from pathlib import Path

from tune_cropshield.api.arguments import AnyPath, path_of
from tune_cropshield.config.places import cache_dir


def report(search_dir: AnyPath) -> Path:
    """Writes SEARCH_DIR/report.html, which opens offline, and returns its path.

    Args:
        search_dir: A search's folder. It may be running, interrupted or done: the report shows what there is.

    Raises:
        UserError: The folder holds no search, or no trial of it was started.
        RunFailure: The file cannot be written.
    """
    from tune_cropshield.outcome.report import write_report
    from tune_cropshield.search.folder import is_running

    folder = path_of(search_dir, "SEARCH_DIR")
    return write_report(folder, cache_dir(), running=is_running(folder))
