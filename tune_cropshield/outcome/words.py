"""Numbers and settings as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tune_cropshield.config.goals import Goal
from tune_cropshield.config.units import counted as counted  # with the other words of a report
from tune_cropshield.config.units import describe_seconds, four_digits
from tune_cropshield.training.run_folder import PART, best_of_parts, spread_of_parts

accuracy = four_digits


def better_by(goal: Goal, gain: float) -> str:
    """Returns by how much something is better, without a sign: "12.5 points", "0.1234" of what is no share."""
    return f"{points(gain).removeprefix('+')} points" if goal.is_share else f"{gain:.4f}"


def difference(goal: Goal, gain: float) -> str:
    """Returns a gain with its sign, as a table holds it: in points, or as a number."""
    return points(gain) if goal.is_share else f"{gain:+.4f}"


def named_values(goal: Goal, line: Mapping[str, Any]) -> str:
    """Returns what a line of metrics says of its goal, and beside another the accuracy: "val_loss 0.5, val_acc 0.9"."""
    told = goal.named(goal.value(line))
    return told if goal.is_accuracy or "val_acc" not in line else f"{told}, val_acc {accuracy(line['val_acc'])}"


IN_EVALUATION = {"val_macro_f1": "macro_f1", "val_balanced_acc": "balanced_acc", "val_auc": "auc", "val_loss": "loss"}


def tested(goal: Goal, record: Mapping[str, Any]) -> str:
    """Returns what stands before the accuracy on test photographs: the goal's value there, as "test_macro_f1 0.8, ".

    "" where the accuracy is the goal, or the record (evaluation_test.json) does not know it.
    """
    value = record.get(IN_EVALUATION.get(goal.name, goal.name))
    if goal.is_accuracy or value is None:
        return ""
    return f"test_{goal.name.removeprefix('val_')} {goal.text(value)}, "


def over_parts(lines: Sequence[dict[str, Any]]) -> str:
    """Returns what follows the accuracy of a trial in parts: its spread, as in " ± 0.0210 over 5 parts".

    " in its first part" while no second one has ended; "" for a trial that is one training.

    lines: of its metrics.jsonl.
    """
    if not lines or PART not in lines[0]:
        return ""
    spread = spread_of_parts(lines)
    return " in its first part" if spread is None else f" ± {spread:.4f} over {len(best_of_parts(lines))} parts"


def number(value: float | None, digits: int = 3) -> str:
    """Returns `value` with so many significant digits, a dash for None and NaN."""
    if value is None or math.isnan(value):
        return "–"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def setting(value: object) -> str:
    """Returns a parameter's value."""
    return "–" if value is None else number(value) if isinstance(value, float) else str(value)


def in_order(values: Iterable[Any]) -> list[Any]:
    """Returns choices with numbers first, ascending; words, like "none", follow in their order."""
    return sorted(values, key=lambda value: value if isinstance(value, (int, float)) else math.inf)


def pair(micro_batch: int, accumulation: int) -> str:
    """Returns a pair in one piece that no line break parts."""
    return f"{micro_batch}\u00a0x\u00a0{accumulation}"


def percent(share: float | None) -> str:
    """Returns a share in percent, a dash where there is none.

    Only nothing is 0 %, and only all is 100 %: 249 of 250 are 99.6 %, and what is nearer to an end is below 0.1 % or
    above 99.9 %.
    """
    if share is None or math.isnan(share):
        return "–"
    if share in (0, 1):
        return f"{100 * share:.0f} %"
    if 0.0995 <= share < 0.995 or not 0 < share < 1:
        return f"{100 * share:.0f} %"
    return "< 0.1 %" if share < 0.001 else "> 99.9 %" if share > 0.999 else f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Returns a difference of two shares in percentage points, with its sign: 0.125 is "+12.5".

    A difference that is there is never shown as 0.0: one photograph of 5,000 is "+0.02".
    """
    value = 100 * share
    return f"{value:+.1f}" if abs(value) >= 0.05 or value == 0 else f"{value:+.1g}"


def p_value(value: float | None) -> str:
    """Returns a p value as a table holds it: "0.043", "< 0.00001", a dash where there is none."""
    return "–" if value is None else f"{value:.2g}" if value >= 1e-5 else "< 0.00001"


def p_equals(value: float) -> str:
    """Returns a p value as it stands in a sentence: "p = 0.043", "p < 0.00001"."""
    return f"p {'= ' if value >= 1e-5 else ''}{p_value(value)}"


def seconds(value: float) -> str:
    """Returns a duration; a short one with a decimal, since a part of a search that took 0.4 s did not take 0 s."""
    if not 0 < value < 10:
        return describe_seconds(value)
    return "< 0.1 s" if value < 0.05 else f"{value:.1f}".removesuffix(".0") + " s"


def one_in(count: int) -> str:
    """Returns how many percentage points one of `count` photographs is."""
    return f"{100 / count:.1f}" if count <= 1000 else f"{100 / count:.2g}"


def share_interval(ends: tuple[float, float]) -> str:
    """Returns both ends of an interval of shares in percent: "80.4 to 96.7 %"."""
    low, high = (f"{100 * end:.1f}".removesuffix(".0") for end in ends)
    return f"{low} to {high} %"


def mib(value: float | None) -> str:
    """Returns an amount of memory, a dash where it is not known."""
    return "–" if value is None else f"{value:,.0f} MiB"
