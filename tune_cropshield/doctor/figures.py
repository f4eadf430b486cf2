"""What was measured, by what it is: the one form in which measurements reach the verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Source = Literal["measured", "estimate", "computed"]


@dataclass(frozen=True)
class Figure:
    """A value in the unit of its quantity, None where it was not measured. note: how it came about, or why there is
    none.
    """

    value: float | None
    source: Source = "measured"
    note: str = ""


@dataclass(frozen=True)
class Key:
    """What a figure is of. pair and card: None where the quantity does not depend on them."""

    quantity: str
    model: str
    pair: tuple[int, int] | None = None
    card: str | None = None


Figures = dict[Key, Figure]
