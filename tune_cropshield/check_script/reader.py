"""A training script -> what is known to be wrong in it, line by line. The script is read, never run."""

from __future__ import annotations

from pathlib import Path

from tune_cropshield.check_script.accumulation import check_accumulation
from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.findings import Finding
from tune_cropshield.check_script.measuring import check_measuring
from tune_cropshield.check_script.order import check_order
from tune_cropshield.check_script.schedules import check_schedules
from tune_cropshield.check_script.settings import check_settings
from tune_cropshield.check_script.source import Source, read_source
from tune_cropshield.check_script.syntax import Syntax
from tune_cropshield.errors import UserError


def read_script(path: Path) -> list[Finding]:
    """Returns the findings in the script at `path`, by line; raises UserError for what is no Python."""
    return findings_in(read_source(path))


def findings_in(source: Source) -> list[Finding]:
    """Returns the findings in a script, by line, each once."""
    try:
        actions = Actions(Syntax(source.tree))
        found = {
            *check_order(actions),
            *check_accumulation(actions),
            *check_schedules(actions),
            *check_measuring(actions),
            *check_settings(actions, source),
        }
    except RecursionError:
        raise UserError(f"{source.name}: nested too deeply to be read") from None
    return sorted(found)
