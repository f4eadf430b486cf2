"""report.html: a search for people to look at, in one file that opens offline."""

from __future__ import annotations

import time
from pathlib import Path

from tune_cropshield.data.dataset import LeafData, open_data
from tune_cropshield.data.split_file import read_split
from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.files import write_text_atomically
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report import (
    clipping,
    course,
    families,
    final,
    memory,
    mistakes,
    parameters,
    photographs,
    repeat,
    time_spent,
    winner,
)
from tune_cropshield.outcome.report.evidence import Evidence, read_evidence
from tune_cropshield.outcome.report.judgement import Judgement
from tune_cropshield.outcome.report.page import Page, render
from tune_cropshield.outcome.report.search_record import SearchRecord, read_search
from tune_cropshield.search.prepare import networks_in_words

REPORT = "report.html"


def write_report(search_dir: Path, cache_dir: Path, data: LeafData | None = None, *, running: bool = False) -> Path:
    """Writes search_dir/report.html, whole or not at all, and returns its path. Nothing else in the folder is touched.

    The search may be running, interrupted or done: the report shows what there is.

    Args:
        cache_dir: where decoded photographs are kept.
        data: the photographs, where they are open already.
        running: whether the search is under way, so that its trials are not taken for interrupted ones.

    Raises:
        UserError: where no trial was started.
        RunFailure: when the file cannot be written.
    """
    record = read_search(search_dir, running=running)
    opened = data if data is not None else _opened(record, cache_dir)
    page = build_page(record, read_evidence(record, opened), opened)
    path = search_dir / REPORT
    try:
        write_text_atomically(path, render(page))
    except OSError as error:
        raise RunFailure(f"{path} cannot be written: {error.strerror or error}") from error
    return path


def build_page(record: SearchRecord, evidence: Evidence, data: LeafData | str) -> Page:
    """Returns the report's content. data: the photographs, or why they cannot be opened."""
    found = (
        winner.section(record, evidence),
        final.section(record),
        photographs.section(record, data),
        course.section(record),
        families.section(record),
        parameters.section(record),
        clipping.section(record),
        memory.section(record),
        time_spent.section(record),
        mistakes.section(record, evidence.judgement),
        repeat.trials_section(record),
        repeat.section(record),
    )
    sections = [section for section in found if section is not None]
    figures = [*winner.key_figures(record), *final.key_figures(record)]
    title = f"Search report: {record.folder.resolve().name}"
    return Page(title, _subtitle(record), figures, sections, notices(record, evidence.judgement))


def notices(record: SearchRecord, judgement: Judgement | str) -> list[str]:
    """Returns what must not be missed: that the search is under way or was cut off, and classes that are lost."""
    found = []
    if record.running:
        found.append(
            f"The search is running: this report shows its state at {time.strftime('%Y-%m-%d %H:%M')}. Run the report "
            "command again for a newer one."
        )
    elif record.unfinished:
        trials, were = words.counted(len(record.unfinished), "trial"), "was" if len(record.unfinished) == 1 else "were"
        found.append(
            f"The search was interrupted while {trials} {were} running: the commands at the end of this page "
            "continue it."
        )
    if isinstance(judgement, Judgement):
        if lost := judgement.never_recognised:
            found.append(f"The winner recognises no validation photograph (recall 0) of {', '.join(lost)}.")
        if never := judgement.never_predicted:
            found.append(f"The winner never predicts {', '.join(never)} for any validation photograph.")
    return found


def _subtitle(record: SearchRecord) -> str:
    config = next((trial.config for trial in record.trials if trial.config is not None), None)
    parts = [f"{config.trial.model} at {config.trial.image_size} px"] if config is not None else []
    if record.space is not None and len(record.space.families) > 1:
        parts = [networks_in_words(record.space)]
    if record.starts:
        start = record.starts[-1]
        parts.append(f"{start.get('photographs', '?')} photographs in {start.get('classes', '?')} classes")
        parts.append(f"started {str(record.starts[0].get('started', '?'))[:16].replace('T', ' ')}")
    return ", ".join(parts)


def _opened(record: SearchRecord, cache_dir: Path) -> LeafData | str:
    """Returns the search's photographs, or why they cannot be opened; most of the report does not need them."""
    config = next((trial.config for trial in (record.winner, *record.trials) if trial and trial.config), None)
    if config is None:
        return "no trial says where they are"
    try:
        return open_data(config.data, {config.trial.final_size}, cache_dir, kept=read_split(record.folder))
    except (UserError, RunFailure) as error:
        return str(error)
