"""All checks of a training script. The script is read, never run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tune_cropshield.check_script.accumulation import check_accumulation
from tune_cropshield.check_script.actions import Actions
from tune_cropshield.check_script.files import read_source
from tune_cropshield.check_script.gradients import check_gradients
from tune_cropshield.check_script.judged import is_for_others, trains, why_no_loop
from tune_cropshield.check_script.means import check_means
from tune_cropshield.check_script.modes import check_modes, evaluation_loops
from tune_cropshield.check_script.order import check_order
from tune_cropshield.check_script.rules import Finding
from tune_cropshield.check_script.scalers import check_scalers
from tune_cropshield.check_script.schedules import check_schedules
from tune_cropshield.check_script.settings import check_settings
from tune_cropshield.check_script.source import Source
from tune_cropshield.check_script.syntax import Syntax
from tune_cropshield.check_script.unfold import unfold
from tune_cropshield.check_script.values import Values
from tune_cropshield.check_script.waits import check_waits


@dataclass(frozen=True)
class Judgement:
    """What is said of a script.

    findings: its known mistakes, by line. unjudged: (line, what and why) of the parts that nothing is said of.
    no_loop: a line on a script without a training loop, else "". evaluates: whether an evaluation was judged.
    """

    source: Source
    findings: tuple[Finding, ...]
    unjudged: tuple[tuple[int, str], ...]
    no_loop: str
    evaluates: bool


def check(path: Path) -> Judgement:
    """Returns what is to be said of the training script or notebook at `path`.

    Raises:
        UserError: for a file that is missing or no Python, with the line where there is one.
    """
    return check_source(read_source(path))


def check_source(source: Source) -> Judgement:
    """Returns what is to be said of a script that was read already; each finding is told once."""
    unread = source.unread
    try:
        as_written = Actions(Syntax(source.tree))
        if is_for_others(as_written):
            lines = check_settings(as_written, source)
            return Judgement(source, tuple(sorted({*lines})), unread, why_no_loop(as_written), False)
        actions = Actions(Syntax(unfold(source.tree)))
        values = Values(actions)
        ordered, unjudged = check_order(actions)
        findings = {
            *ordered,
            *check_accumulation(actions),
            *check_schedules(actions),
            *check_waits(actions, values),
            *check_means(actions, values),
            *check_modes(actions, values),
            *check_gradients(actions, values),
            *check_scalers(actions),
            *check_settings(as_written, source),
        }
        no_loop = "" if trains(as_written) else why_no_loop(as_written)
        evaluates = bool(evaluation_loops(actions, values))
    except RecursionError:
        return Judgement(source, (), (*unread, (1, "the script, which is nested too deeply")), "", False)
    parts = sorted({*unread, *((line, f"{name}, too many ways through it") for line, name in unjudged)})
    return Judgement(source, tuple(sorted(findings)), tuple(parts), no_loop, evaluates)
