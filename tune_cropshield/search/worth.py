"""What trials are worth that were not trained to their end, so that a sampler can learn from all of them.

Accuracies after 4 and after 16 epochs do not compare. A trial that was stopped after 4 is taken to gain what those that
went on from there have gained in the mean; how differently they gained is how little is known of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

UNKNOWN_GAIN = 0.03  # of a share: standard deviation of a gain that fewer than three trials have shown
UNKNOWN_SHARE = 0.1  # of another metric: the same as a share of the range of all values, which of an accuracy is 0.03


@dataclass(frozen=True)
class Worth:
    """What a trial would come to: an estimate of its best value, and its variance (0 where it ran to its end)."""

    value: float
    variance: float


def worths(best_so_far: Mapping[int, Mapping[int, float]], unknown_gain: float = UNKNOWN_GAIN) -> dict[int, Worth]:
    """Returns what each trial would come to, compared with the others.

    Args:
        best_so_far: {trial number: {epoch: best value so far, the higher the better}} of trials that were stopped or
            have ended, each with at least one epoch.
        unknown_gain: the standard deviation of a gain that fewer than three trials have shown.
    """
    last = {number: max(values) for number, values in best_so_far.items()}
    stops = sorted(set(last.values()))
    gains = {
        (start, end): [
            values[end] - values[start] for values in best_so_far.values() if start in values and end in values
        ]
        for start, end in pairwise(stops)
    }
    found = {}
    for number, values in best_so_far.items():
        value, variance = values[last[number]], 0.0
        for (start, _), gained in gains.items():
            if start >= last[number] and gained:
                value += float(np.mean(gained))
                variance += float(np.var(gained)) if len(gained) > 2 else unknown_gain**2
        found[number] = Worth(value, variance)
    return found
