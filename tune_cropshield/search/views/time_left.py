"""How long a search will still take, from the epochs that it has measured and the trials that have ended."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

IMAGINED_TRIALS = 4  # that weigh as much as what was seen at a pruning step
MOST_SIMULATED = 10_000  # trials to come; of more, the average is as good


def surviving_shares(
    ended: Sequence[int], running: Sequence[int], epochs: int, expected: Mapping[int, float] | None = None
) -> list[float]:
    """Returns for each number of epochs below `epochs` which share of the trials trains more than that.

    It is Kaplan and Meier's estimate: those that still run count for as far as they have come, so that the trials that
    end first, which are the short ones, do not stand for all. At the pruning steps a few trials more are counted that
    went as the rule means it: the first ones are hardly pruned, since there is little to compare them with.

    Args:
        ended: how many epochs each trial that has ended was trained.
        running: how many each trial under way has been trained.
        epochs: of a trial that is never pruned.
        expected: {pruning step: the share of the trials that a rule means to stop there}.
    """
    ends, censored, expected = Counter(ended), Counter(running), expected or {}
    at_risk, share, shares = len(ended) + len(running), 1.0, []
    for trained in range(epochs):
        imagined = IMAGINED_TRIALS if trained in expected else 0
        if ends[trained] or imagined:
            stopped = ends[trained] + imagined * expected.get(trained, 0.0)
            share *= 1 - stopped / (at_risk + imagined)
        at_risk -= ends[trained] + censored[trained]
        shares.append(share)
    return shares


def seconds_left(
    running: Iterable[float],
    num_waiting: int,
    epochs_of_waiting: float,
    slots: int,
    seconds_per_epoch: float,
    epochs_at_last: float = 0.0,
) -> float:
    """Returns how long it takes until the last trial has ended.

    Args:
        running: epochs that each trial under way will still train.
        num_waiting: trials that are to come.
        epochs_of_waiting: that each of them will train, on average.
        slots: trials at once.
        seconds_per_epoch: of one slot, starts of trials included.
        epochs_at_last: of a trial that is continued when no other waits any more.
    """
    ends = sorted(running)
    ends += [0.0] * (slots - len(ends))
    if num_waiting > MOST_SIMULATED:
        return (sum(ends) + num_waiting * epochs_of_waiting + epochs_at_last) / len(ends) * seconds_per_epoch
    heapq.heapify(ends)
    for _ in range(num_waiting):
        heapq.heappush(ends, heapq.heappop(ends) + epochs_of_waiting)
    heapq.heappush(ends, heapq.heappop(ends) + epochs_at_last)
    return max(ends) * seconds_per_epoch


class Pace:
    """How long an epoch takes in one slot, counted from the slots' time since the first trial began.

    The starts of trials and what goes on between epochs are part of it.
    """

    def __init__(self) -> None:
        self._epochs = 0
        self._busy_s = 0.0
        self._since: float | None = None
        self._num_running = 0
        self.slots = 0  # the most trials that were under way at once

    def running(self, count: int, now: float) -> None:
        """Takes in that from `now` on so many trials are under way."""
        self._count_until(now)
        self._num_running = count
        self.slots = max(self.slots, count)

    def epoch(self, now: float) -> None:
        """Takes in that an epoch was trained."""
        self._count_until(now)
        self._epochs += 1

    def _count_until(self, now: float) -> None:
        if self._since is not None:
            self._busy_s += self._num_running * (now - self._since)
        self._since = now

    @property
    def seconds_per_epoch(self) -> float | None:
        """None before the first epoch."""
        return self._busy_s / self._epochs if self._epochs else None
