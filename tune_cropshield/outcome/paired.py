"""Is one setting better than another by more than the random seed explains? Compared seed by seed.

The t-test is chosen because it can answer with few seeds: a signed-rank or sign-flipping test knows 2^n sign patterns,
so with 3 seeds its p is never below 0.25, with 5 never below 0.06. The price is the assumption that differences scatter
roughly normally, which few seeds cannot check.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean, stdev

from scipy import stats

ALPHA = 0.05  # how often chance alone may pass for a gain, over all comparisons of one confirmation
# Standard deviation, in steps, of the difference of two numbers that were each rounded to whole steps.
STEP_SPREAD = 1 / math.sqrt(6)


@dataclass(frozen=True)
class Comparison:
    """What a setting gains over another, as a share (0.01 is one point).

    low, high: the 95 % interval of the gain, as far as accuracies can differ (-1 to 1). smallest_gain_shown: the
    smallest gain that would have been detectable, given the spread over the seeds; above 1, none would have been.
    """

    num_pairs: int
    gain: float
    spread: float  # standard deviation of the gain from seed to seed
    low: float
    high: float
    p_value: float  # two-sided, of this comparison alone
    smallest_gain_shown: float


def compare(
    values: Sequence[float], baseline: Sequence[float], step: float, *, bound: float = 1.0
) -> Comparison | None:
    """Returns the paired t-test of `values` against `baseline`; None with fewer than two pairs.

    Number i of both comes from the same seed.

    step: the smallest difference that a value can show, 1 / photographs for an accuracy. The spread is never taken to
    be smaller than what rounding to such steps makes of it: three seeds with equal gains would otherwise prove
    anything.

    bound: how far apart two values can be at most, 1 for shares.
    """
    differences = [value - base for value, base in zip(values, baseline, strict=True)]
    if len(differences) < 2:
        return None
    gain, spread = fmean(differences), stdev(differences)
    error = max(spread, step * STEP_SPREAD) / math.sqrt(len(differences))
    freedom = len(differences) - 1
    reach = float(stats.t.ppf(1 - ALPHA / 2, freedom)) * error
    p_value = float(2 * stats.t.sf(abs(gain) / error, freedom))
    low, high = max(gain - reach, -bound), min(gain + reach, bound)
    return Comparison(len(differences), gain, spread, low, high, p_value, reach)


def in_sequence(p_values: Sequence[float]) -> list[float]:
    """Returns the p values of comparisons that are looked at in an order fixed beforehand.

    Each is looked at only where all before it showed something.

    Such a sequence is wrong as rarely as a single comparison, without raising any p for their number: each becomes the
    largest up to it (fixed-sequence testing; Westfall and Krishen, Journal of Statistical Planning and Inference 99,
    2001).
    """
    return list(accumulate(p_values, max))
