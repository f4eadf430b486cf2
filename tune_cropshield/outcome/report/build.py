"""report.html: a search for people to look at, in one file that opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.files import write_text_atomically
from tune_cropshield.outcome.report import clipping, course, memory, mistakes, parameters, repeat, time_spent, winner
from tune_cropshield.outcome.report.judgement import Judgement, judge
from tune_cropshield.outcome.report.page import Page, render
from tune_cropshield.outcome.report.search_record import SearchRecord, read_search

if TYPE_CHECKING:
    from tune_cropshield.data.dataset import LeafData

REPORT = "report.html"


def write_report(search_dir: Path, cache_dir: Path, data: LeafData | None = None) -> Path:
    """Writes search_dir/report.html, whole or not at all, and returns its path. Nothing else in the folder is touched.

    The search may be running, interrupted or done: the report shows what there is.

    Args:
        cache_dir: where decoded photographs are kept.
        data: the photographs, where they are open already.

    Raises:
        UserError: where no trial was started.
        RunFailure: when the file cannot be written.
    """
    record = read_search(search_dir)
    page = build_page(record, _judgement(record, cache_dir, data))
    path = search_dir / REPORT
    try:
        write_text_atomically(path, render(page))
    except OSError as error:
        raise RunFailure(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def build_page(record: SearchRecord, judgement: Judgement | str) -> Page:
    """Returns the report's content. judgement: of the winner, or why there is none."""
    sections = (
        winner.section(record),
        course.section(record),
        parameters.section(record),
        clipping.section(record),
        memory.section(record),
        time_spent.section(record),
        mistakes.section(record, judgement),
        repeat.trials_section(record),
        repeat.section(record),
    )
    return Page(
        f"Search report: {record.folder.resolve().name}", _subtitle(record), winner.key_figures(record), sections
    )


def _subtitle(record: SearchRecord) -> str:
    config = next((trial.config for trial in record.trials if trial.config is not None), None)
    parts = [f"{config.trial.model} at {config.trial.image_size} px"] if config is not None else []
    if record.starts:
        start = record.starts[-1]
        parts.append(f"{start.get('photographs', '?')} photographs in {start.get('classes', '?')} classes")
        parts.append(f"started {str(start.get('started', '?'))[:16].replace('T', ' ')}")
    return ", ".join(parts)


def _judgement(record: SearchRecord, cache_dir: Path, data: LeafData | None) -> Judgement | str:
    """Returns the winner's judgement, or a sentence that says why it is missing.

    The rest of the report does not depend on it.
    """
    if record.winner is None:
        return "There is no winner yet."
    try:
        on_cpu = bool(record.starts) and record.starts[-1].get("device") == "cpu"
        return judge(record.winner.folder, cache_dir, data, "cpu" if on_cpu else "auto")
    except (UserError, RunFailure) as error:
        return f"The winner's mistakes cannot be shown: {error}."
    except RuntimeError as error:  # a GPU that is busy or full
        return f"The winner's mistakes cannot be shown: {str(error).splitlines()[0]}."
