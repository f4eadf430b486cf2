"""How sure a share of photographs is: Wilson's interval of one network, McNemar's test of two on the same photographs.

Wilson's interval is right where the usual p ± 1.96 sqrt(p (1 - p) / n) is not, near 0 and 1: of 48 right among 48 it
says 92.6 to 100 %, where the other says 100 to 100 % (Brown, Cai and DasGupta, Statistical Science 16, 2001).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from tune_cropshield.training.predictions import Judged


def interval(right: int, count: int) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of a share of `right` in `count` photographs, both ends from 0 to 1."""
    found = binomtest(right, count).proportion_ci(0.95, method="wilson")
    return float(found.low), float(found.high)


@dataclass(frozen=True)
class OnSamePhotographs:
    """Two networks that judged the same `count` photographs: how many one of them alone got right."""

    count: int
    only_first: int
    only_second: int

    @property
    def p_value(self) -> float:
        """McNemar's exact test, two-sided: were they equally good, how often would chance part them so far?"""
        parted = self.only_first + self.only_second
        return float(binomtest(self.only_first, parted).pvalue) if parted else 1.0


def on_same_photographs(first: Sequence[Judged], second: Sequence[Judged]) -> OnSamePhotographs | None:
    """Returns how two networks differ, photograph by photograph; None where they did not judge the same ones."""
    right_of_second = {row.photograph: row.right for row in second}
    if not first or {row.photograph for row in first} != right_of_second.keys():
        return None
    pairs = [(row.right, right_of_second[row.photograph]) for row in first]
    return OnSamePhotographs(len(pairs), pairs.count((True, False)), pairs.count((False, True)))
