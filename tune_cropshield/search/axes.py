"""Searched parameters as samplers see them: what has an order lies on an axis in that order.

To Optuna, choices are unordered words. But an effective batch of 32 lies between 16 and 64, and "none" is the largest
bound for a norm: a sampler that knows it learns from every trial about its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tune_cropshield.config.domain import NO_BOUND, is_number
from tune_cropshield.memory.choose.pairs import parse_pair
from tune_cropshield.search.trial_settings import PAIR

# Words that have an order.
ORDERS = {"augment": ("none", "conservative", "moderate", "aggressive")}


@dataclass(frozen=True)
class Axis:
    """One parameter for a sampler.

    Attributes:
        distribution: what the sampler draws from. Of ordered choices, their places in `order`.
        order: the choices from the smallest to the largest; None for ranges and for words without an order.
    """

    distribution: BaseDistribution
    order: tuple[Any, ...] | None = None

    def shown(self, value: Any) -> Any:
        """Returns a parameter's value as the sampler sees it: a range's nearest end for one that lies outside.

        Raises ValueError where the choices do not hold it.
        """
        if self.order is not None:
            return self.order.index(value)
        if isinstance(self.distribution, (FloatDistribution, IntDistribution)):
            return min(max(value, self.distribution.low), self.distribution.high)
        if value not in self.distribution.choices:  # type: ignore[attr-defined]  # there are three distributions
            raise ValueError(value)
        return value

    def meant(self, shown: Any) -> Any:
        """Returns the parameter's value that the sampler's stands for."""
        return self.order[shown] if self.order is not None else shown

    @property
    def neutral(self) -> Any:
        """What stands for the parameter where a trial does not have it: the middle of the axis, or the first word."""
        if isinstance(self.distribution, FloatDistribution) and self.distribution.log:
            return math.sqrt(self.distribution.low * self.distribution.high)
        if isinstance(self.distribution, FloatDistribution):
            return (self.distribution.low + self.distribution.high) / 2
        if isinstance(self.distribution, IntDistribution):
            return (self.distribution.low + self.distribution.high) // 2
        return self.distribution.choices[0]  # type: ignore[attr-defined]  # there are three distributions


@dataclass(frozen=True)
class PlaceAxis(Axis):
    """A parameter whose range depends on another choice: samplers see its place there, from 0 to 1.

    Attributes:
        range: of the trials that this axis is for.
    """

    range: BaseDistribution = field(kw_only=True)

    def shown(self, value: Any) -> float:
        """Returns the place of a value: of choices, the middle of an even share. Raises as `Axis.shown` does."""
        if self.order is not None:
            return (self.order.index(value) + 0.5) / len(self.order)
        value = Axis(self.range).shown(value)
        low, high = self._ends
        if self._is_log:
            return math.log(value / low) / math.log(high / low)
        return float((value - low) / (high - low))

    def meant(self, shown: Any) -> Any:
        """Returns the value at a place."""
        if self.order is not None:
            return self.order[min(int(shown * len(self.order)), len(self.order) - 1)]
        low, high = self._ends
        value = low * (high / low) ** shown if self._is_log else low + shown * (high - low)
        if isinstance(self.range, IntDistribution):
            return min(max(round(value), self.range.low), self.range.high)
        return min(max(float(value), low), high)

    @property
    def _is_log(self) -> bool:
        return isinstance(self.range, FloatDistribution) and self.range.log

    @property
    def _ends(self) -> tuple[float, float]:
        """Half a step beyond the ends of whole numbers: each has an even share of the axis."""
        assert isinstance(self.range, (FloatDistribution, IntDistribution))
        half = 0.5 if isinstance(self.range, IntDistribution) else 0.0
        return self.range.low - half, self.range.high + half


def axes_of(branches: Sequence[Mapping[str, BaseDistribution]]) -> list[dict[str, Axis]]:
    """Returns the axes of each branch, given its parameters: a name has one scale in all of them.

    What has the same range wherever it is lies on its own axis. What has one value in each branch lies on none: it goes
    with the branch.
    """
    found: list[dict[str, Axis]] = [{} for _ in branches]
    for name in dict.fromkeys(name for branch in branches for name in branch):
        ranges = [branch[name] for branch in branches if name in branch]
        if all(one == ranges[0] for one in ranges):
            for axis, branch in zip(found, branches, strict=True):
                axis |= {name: _axis(name, branch[name])} if name in branch else {}
        elif not all(one.single() for one in ranges):
            for axis, branch in zip(found, branches, strict=True):
                axis |= {name: _place_axis(name, branch[name])} if name in branch else {}
    return found


def _place_axis(name: str, range: BaseDistribution) -> Axis:
    order = None
    if isinstance(range, CategoricalDistribution):
        key = _order_of(name, range.choices)
        order = tuple(sorted(range.choices, key=key)) if key is not None else tuple(range.choices)
    return PlaceAxis(FloatDistribution(0.0, 1.0), order, range=range)


def axes(distributions: Mapping[str, BaseDistribution]) -> dict[str, Axis]:
    """Returns the axis of every searched parameter, from what the journal's study knows of it."""
    return {name: _axis(name, distribution) for name, distribution in distributions.items()}


def _axis(name: str, distribution: BaseDistribution) -> Axis:
    if not isinstance(distribution, CategoricalDistribution):
        return Axis(distribution)
    key = _order_of(name, distribution.choices)
    if key is None or len(distribution.choices) == 1:
        return Axis(distribution)
    order = tuple(sorted(distribution.choices, key=key))
    return Axis(IntDistribution(0, len(order) - 1), order)


def _order_of(name: str, choices: tuple[Any, ...]) -> Callable[[Any], Any] | None:
    """Returns what choices are sorted by, None where they have no order."""
    if name == PAIR:
        return lambda pair: (parse_pair(pair).effective_batch, parse_pair(pair).micro_batch)
    if name in ORDERS and all(choice in ORDERS[name] for choice in choices):
        return ORDERS[name].index
    if all(is_number(choice) or choice == NO_BOUND for choice in choices):
        return lambda choice: math.inf if choice == NO_BOUND else choice
    return None
