"""Numbers and settings as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any


def accuracy(value: float | None) -> str:
    """Returns an accuracy with four digits, a dash where there is none."""
    return "–" if value is None else f"{value:.4f}"


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
    """Returns a share in percent, a dash where there is none."""
    return (
        "–"
        if share is None or math.isnan(share)
        else f"{100 * share:.0f} %"
        if share >= 0.1 or share == 0
        else f"{100 * share:.1f} %"
    )


def mib(value: float | None) -> str:
    """Returns an amount of memory, a dash where it is not known."""
    return "–" if value is None else f"{value:,.0f} MiB"


def counted(count: int, noun: str) -> str:
    """Returns "1 trial", "2 trials"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
