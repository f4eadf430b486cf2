"""What earlier searches and recorded trainings know of a search to come: what to try first, a prior for its sampler.

Accuracies of different photographs do not compare. So a trial counts by its quality: the share of its own search's
trials that it is better than.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tune_cropshield.config.domain import NO_BOUND, Domain, Value, is_number
from tune_cropshield.config.space import SearchSpace

Setting = dict[str, Any]

MOST_STARTS = 4
GOOD = 0.75  # quality above which a trial that is not its search's best may be tried first too
SAME = 0.05  # settings as near as that are one: a twentieth of the space on each axis
# A prior before this search has a trial of its own, and the own trials from which on they know better. On recorded
# trainings, 30 earlier trials of the same network lifted the best of 10 by 0.4 to 1.9 points beside the same starting
# points without a prior; more or fewer rows made no difference that 16 seeds could tell. What another network knows is
# no help (results/replay_2026-11).
MOST_ROWS, NO_PRIOR_FROM = 48, 12


@dataclass(frozen=True)
class PastTrial:
    """A trial of an earlier search.

    Attributes:
        parameters: what was searched, as a settings file has it: {"lr": 1e-3, "max_norm": "none", ...}.
        best_so_far: {epoch: its best value so far, the higher the better}, from epoch 1; empty where it came to
            none. Of a trial in parts, the mean over those that had ended.
        finished: it ran to its end, and was not stopped early.
        failed: it diverged or raised an error. Its setting is then worse than any that worked.
        parts: how many folds or seeds it came through, where a trial has several: one that came through more is better.
    """

    parameters: Setting
    best_so_far: Mapping[int, float]
    finished: bool = True
    failed: bool = False
    parts: int = 0

    @property
    def worth(self) -> tuple[int, float]:
        """What trials of one search are ranked by, the best last: the parts it came through, and its value."""
        if self.failed or not self.best_so_far:
            return -1, -math.inf
        return self.parts, self.best_so_far[max(self.best_so_far)]


@dataclass(frozen=True)
class Past:
    """An earlier search.

    Attributes:
        name: what it is called on screen: its folder, or the table that it was recorded in.
        trials: those that came to an end, or far enough to be judged.
        fixed: the settings that were the same in all its trials.
    """

    name: str
    trials: tuple[PastTrial, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def qualities(self) -> list[float]:
        """Of each trial, the share of all that it is better than, equals and itself counting half: within 0 and 1."""
        ranked = sorted(trial.worth for trial in self.trials)
        return [
            (bisect_left(ranked, trial.worth) + bisect_right(ranked, trial.worth)) / 2 / len(ranked)
            for trial in self.trials
        ]

    def settings_in(self, space: SearchSpace) -> list[tuple[Setting, float]]:
        """Returns each trial in terms of `space`, with its quality; those left out that share nothing with it."""
        pairs = zip(self.trials, self.qualities, strict=True)
        found = [(space.fitted({**self.fixed, **trial.parameters}), quality) for trial, quality in pairs]
        return [(setting, quality) for setting, quality in found if setting]


@dataclass(frozen=True)
class Knowledge:
    """What a search was told when it began; it is kept in its folder, so that a resumed search knows the same.

    Attributes:
        sources: {name of an earlier search: how many of its trials are known}.
        starts: settings to try first, in terms of this search; they may be partial.
        rows: every trial known, in terms of this search, with its quality.
    """

    sources: Mapping[str, int] = field(default_factory=dict)
    starts: tuple[Setting, ...] = ()
    rows: tuple[tuple[Setting, float], ...] = ()

    def has_tried(self, start: Setting) -> bool:
        """Tells whether a trial known has just these values, whatever its others."""
        return any(
            all(name in setting and _equal(setting[name], value) for name, value in start.items())
            for setting, _ in self.rows
        )

    def prior(self, space: SearchSpace, own_values: Sequence[float]) -> list[tuple[Setting, float]]:
        """Returns trials to show the sampler beside this search's own, as (setting, value).

        They are few, spread evenly over their qualities, and fewer with each own trial until none is left. Their values
        are this search's: one of quality q gets the q-quantile of the own values. Settings that lack a parameter of
        `space` are left out.

        Args:
            own_values: what this search's own trials were worth so far, those that were stopped early too.
        """
        whole = [
            (setting, quality) for setting, quality in self.rows if setting.keys() == space.domains_of(setting).keys()
        ]
        count = min(len(whole), round(MOST_ROWS * max(0.0, 1 - len(own_values) / NO_PRIOR_FROM)))
        whole.sort(key=lambda row: row[1])
        shown = [whole[round((place + 0.5) / count * len(whole) - 0.5)] for place in range(count)]
        scale = _scale(own_values)
        return [(dict(setting), scale(quality)) for setting, quality in shown]


def knowledge_of(pasts: Sequence[Past], space: SearchSpace, limit: int = MOST_STARTS) -> Knowledge:
    """Returns what earlier searches know of a search in `space`, with at most `limit` settings to try first."""
    rows = tuple(row for past in pasts for row in past.settings_in(space))
    sources = {past.name: len(past.trials) for past in pasts}
    return Knowledge(sources, tuple(starting_settings(pasts, space, limit)), rows)


def starting_settings(pasts: Sequence[Past], space: SearchSpace, limit: int = MOST_STARTS) -> list[Setting]:
    """Returns at most `limit` settings to try first, in terms of `space`; they may be partial.

    The best of each search come first, then other good ones. Each is the one that adds most to those before it: the
    better in its own search and the further from them, the more. Of searches given earlier, equals go before. One that
    is no better than half of its search, as the only trial of one is, is never taken.
    """
    found = [past.settings_in(space) for past in pasts]
    winners = [max(trials, key=lambda row: row[1]) for trials in found if trials]
    chosen = _add_most_different([], [row for row in winners if row[1] > 0.5], space, limit, lambda quality: quality)
    good = [row for trials in found for row in trials if row[1] > GOOD]
    return _add_most_different(chosen, good, space, limit, lambda quality: quality - GOOD)


def _add_most_different(
    chosen: list[Setting],
    candidates: Iterable[tuple[Setting, float]],
    space: SearchSpace,
    limit: int,
    worth: Callable[[float], float],
) -> list[Setting]:
    """Returns `chosen` and what is added to it, up to `limit` settings in all.

    Added is always the candidate whose worth times its distance from the nearest setting before it is largest.
    """
    chosen, left = list(chosen), list(candidates)
    while len(chosen) < limit:
        away = [min((distance(setting, other, space) for other in chosen), default=1.0) for setting, _ in left]
        gains = [worth(quality) * far if far > SAME else 0.0 for (_, quality), far in zip(left, away, strict=True)]
        if not any(gains):
            break
        chosen.append(left.pop(gains.index(max(gains)))[0])
    return chosen


def distance(one: Setting, other: Setting, space: SearchSpace) -> float:
    """Returns how far apart two settings lie: 0 for equal ones, 1 for opposite corners of what both speak of.

    It is the root of the mean square over the parameters that both have, each on its own axis; 1 where they share none.
    """
    both = one.keys() & other.keys()
    if not both:
        return 1.0
    first, second = space.domains_of(one), space.domains_of(other)
    squares = [_apart(first[name], one[name], second[name], other[name]) ** 2 for name in both]
    return math.sqrt(sum(squares) / len(squares))


def _apart(domain: Domain, one: Value, domain_of_other: Domain, other: Value) -> float:
    """Returns the distance of two values, from 0 to 1, each by its place in its own domain.

    Numbers among choices are in order, a twofold one as far from the next as any, and "none", a bound that is never
    reached, behind the largest. Words differ or do not.
    """
    places = _place(domain, one), _place(domain_of_other, other)
    return float(one != other) if None in places else abs(places[0] - places[1])  # type: ignore[operator]


def _place(domain: Domain, value: Value) -> float | None:
    """Returns where a value lies in its domain, from 0 to 1; None among words."""
    if domain.choice is not None:
        if not all(is_number(choice) or choice == NO_BOUND for choice in domain.choice):
            return None
        order = sorted(domain.choice, key=lambda choice: math.inf if choice == NO_BOUND else float(choice))
        return order.index(value) / max(1, len(order) - 1)
    low, high = domain.range
    if domain.log is not None:
        return math.log(float(value) / low) / math.log(high / low)
    return (float(value) - low) / (high - low)


def _equal(one: Value, other: Value) -> bool:
    if is_number(one) and is_number(other):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other


def _scale(own_values: Sequence[float]) -> Callable[[float], float]:
    """Returns (quality) -> a value on the scale of `own_values`: their quantile, quality itself where there are none.

    The lowest of all stands as far below them as they spread, so that the worst of a prior is told from the best of
    them while there are few.
    """
    if not own_values:
        return lambda quality: quality
    spread = max(own_values) - min(own_values)
    steps = [min(own_values) - (spread or 1.0), *own_values]
    return lambda quality: float(np.quantile(steps, quality))
