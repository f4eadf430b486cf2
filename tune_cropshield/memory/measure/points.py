"""Measured points (micro-batch -> memory and speed) and what may be concluded from them.

Peak memory over the micro-batch is convex and piecewise linear, as a maximum over the moments of a window: a chord
between two measured points never lies below the curve, but a line through small points runs below it further out. So we
read between points, never beyond.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from tune_cropshield.memory.choose.pairs import ANY, Allowed

LARGEST_MEASURED = 8  # candidates of one model: at about a second each the probe stays short
# The estimate errs by up to a tenth, mostly on the safe side: what it just rules out is worth a try.
TRIED_ABOVE_ESTIMATE = 1.1


@dataclass(frozen=True)
class Point:
    """The step at one micro-batch under an allocator cap.

    The figures are None when it did not fit; `reason` then says how that showed. They are those of updates of two
    micro-batches: with one, a little less memory is taken, and the update's own time is shared by fewer images.
    """

    micro_batch: int
    cap_mib: float
    peak_allocated_mib: float | None = None
    peak_reserved_mib: float | None = None
    images_per_s: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Line:
    """Reserved memory at large batches: fixed_mib + per_image_mib x batch."""

    fixed_mib: float
    per_image_mib: float


class Points:
    """Points of one model, by micro-batch."""

    def __init__(self, points: Iterable[Point]) -> None:
        self._points = {point.micro_batch: point for point in sorted(points, key=lambda point: point.micro_batch)}

    def at(self, micro_batch: int) -> Point | None:
        """Returns the point at `micro_batch` if it was measured and fitted."""
        point = self._points.get(micro_batch)
        return point if point is not None and point.peak_reserved_mib is not None else None

    def reserved_mib(self, micro_batch: int) -> float | None:
        """Returns what `micro_batch` reserves: measured, or at most (on the chord between its neighbours).

        None outside the measured range.
        """
        measured = self._measured()
        for (low, low_mib), (high, high_mib) in itertools.pairwise(measured):
            if low <= micro_batch <= high:
                return low_mib + (high_mib - low_mib) * (micro_batch - low) / (high - low)
        return dict(measured).get(micro_batch)

    def fits(self, micro_batch: int, budget_mib: float) -> bool:
        """Tells whether `micro_batch` is known to stay within `budget_mib`.

        Below the smallest point it takes no more than that.
        """
        measured = self._measured()
        if not measured:
            return False
        reserved_mib = self.reserved_mib(max(micro_batch, measured[0][0]))
        return reserved_mib is not None and reserved_mib <= budget_mib

    def line(self) -> Line | None:
        """Returns the line through the two largest points, None with fewer."""
        if len(self._measured()) < 2:
            return None
        (low, low_mib), (high, high_mib) = self._measured()[-2:]
        per_image_mib = (high_mib - low_mib) / (high - low)
        return Line(high_mib - per_image_mib * high, per_image_mib)

    def smallest_need_mib(self) -> float | None:
        """Returns the least that any measured point reserved, None where none fitted."""
        return min((mib for _, mib in self._measured()), default=None)

    def _measured(self) -> list[tuple[int, float]]:
        return [
            (size, point.peak_reserved_mib)
            for size, point in self._points.items()
            if point.peak_reserved_mib is not None
        ]


def sizes_to_measure(candidates: Iterable[int], likely_largest: int | None, allowed: Allowed = ANY) -> list[int]:
    """Returns which micro-batches to measure, ascending.

    candidates: those that could be chosen. allowed: those that can be trained with. likely_largest: the estimate's,
    None without one. Far larger ones are left out; of very many, powers of two and the largest are kept. Two at least
    lie near the largest, so that the line through them holds where it matters.
    """
    possible = sorted(set(candidates))
    if likely_largest is not None:
        possible = [size for size in possible if size <= TRIED_ABOVE_ESTIMATE * likely_largest] or possible[:1]
    if len(possible) > LARGEST_MEASURED:
        powers = [size for size in possible if size & (size - 1) == 0][-(LARGEST_MEASURED - 2) :]
        possible = sorted({possible[0], possible[-1], *powers})
    if likely_largest is None:
        return possible
    top = min(likely_largest, possible[-1])
    near = [size for size in possible if size >= top / 2]
    if len(near) > 1:
        return possible
    unit = 2 if allowed.even else 1
    least = max(unit, allowed.smallest)
    return sorted({*possible, *(max(round(top * share) // unit * unit, least) for share in (0.5, 0.75))})
