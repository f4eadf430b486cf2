"""`report`: a search as one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.api.arguments import AnyPath
from tune_cropshield.api.names import search_named
from tune_cropshield.config.places import cache_dir
from tune_cropshield.errors import RunFailure, UserError

if TYPE_CHECKING:  # PyTorch takes seconds to import: a wrong folder is told about before
    from tune_cropshield.data.dataset import LeafData


def write_again(search_dir: Path, data: LeafData | None = None) -> Path | None:
    """Writes a search's report.html again, where there is one, for what has come since, and returns its path.

    None where there is none, or it cannot be written: what has come is safe in files of its own.

    Args:
        data: the photographs, where they are open already.
    """
    from tune_cropshield.outcome.report import REPORT, write_report
    from tune_cropshield.search.folder import is_running

    if not (search_dir / REPORT).exists():
        return None
    try:
        return write_report(search_dir, cache_dir(), data, running=is_running(search_dir))
    except (OSError, UserError, RunFailure):
        return None


def report(search_dir: AnyPath) -> Path:
    """Writes SEARCH_DIR/report.html, which opens offline, and returns its path.

    Args:
        search_dir: A search's folder, or its name in results/runs. It may be running, interrupted or done: the report
            shows what there is.

    Raises:
        UserError: The folder holds no search, or no trial of it was started.
        RunFailure: The file cannot be written.
    """
    from tune_cropshield.outcome.report import write_report
    from tune_cropshield.search.folder import is_running

    folder = search_named(search_dir)
    return write_report(folder, cache_dir(), running=is_running(folder))
