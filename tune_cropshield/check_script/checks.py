"""All checks of a training script. The script is read, never run."""

from __future__ import annotations

from pathlib import Path

from tune_cropshield.check_script.accumulation import check_accumulation
from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.measuring import check_measuring
from tune_cropshield.check_script.order import check_order
from tune_cropshield.check_script.rules import Finding
from tune_cropshield.check_script.schedules import check_schedules
from tune_cropshield.check_script.settings import check_settings
from tune_cropshield.check_script.source import Source, read_source
from tune_cropshield.check_script.syntax import Syntax
from tune_cropshield.errors import UserError


def check(path: Path) -> list[Finding]:
    """Returns the known mistakes in the training script at `path`, by line.

    Raises:
        UserError: for a file that is missing or no Python, with the line where there is one.
    """
    return check_source(read_source(path))


def check_source(source: Source) -> list[Finding]:
    """Returns the known mistakes in a script that was read already, by line, each once.

    Raises:
        UserError: for a script that is nested too deeply to be read.
    """
    try:
        actions = Actions(Syntax(source.tree))
        findings = {
            *check_order(actions),
            *check_accumulation(actions),
            *check_schedules(actions),
            *check_measuring(actions),
            *check_settings(actions, source),
        }
    except RecursionError:
        raise UserError(f"{source.name}: nested too deeply to be read") from None
    return sorted(findings)
