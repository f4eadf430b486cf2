"""Searched parameters as samplers see them: what has an order lies on an axis in that order.

To Optuna, choices are unordered words. But an effective batch of 32 lies between 16 and 64, and "none" is the largest
bound for a norm: a sampler that knows it learns from every trial about its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
