"""What a searched parameter may be: a range or a list of choices, as data; and as Optuna knows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard

from pydantic import BeforeValidator, Field, model_validator

from tune_cropshield.config.faults import Rule, Settings, described_as, shown

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution  # half a second to import: a faulty file is told about at once

Value = str | float | int | bool
NO_BOUND = "none"  # of max_norm and its like: nothing is clipped
KINDS = {"log": "log", "uniform": "uniform", "integer": "int", "choice": "choice"}  # field -> its key in the file


def is_number(value: object) -> TypeGuard[float]:
    """Tells whether `value` is a number; true and false are none."""
    return isinstance(value, (float, int)) and not isinstance(value, bool)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _several_kinds(domain: Domain) -> str | None:
    given = [key for name, key in KINDS.items() if getattr(domain, name) is not None]
    return (
        None
        if len(given) == 1
        else f"give exactly one of log, uniform, int or choice, but got {' and '.join(given) or 'none'}"
    )


def _no_real_choice(domain: Domain) -> str | None:
    choice = domain.choice
    return (
        None
        if choice is None or (choice and len(set(choice)) == len(choice))
        else f"there must be choices, all different, but got {shown(choice)}"
    )


def _not_in_order(domain: Domain) -> str | None:
    for ends in (domain.log, domain.uniform, domain.integer):
        if ends is not None and not ends[0] < ends[1]:
            return f"`low < high` must hold, but got low={ends[0]}, high={ends[1]}"
    return None


def _logarithm_of_nothing(domain: Domain) -> str | None:
    return (
        None
        if domain.log is None or domain.log[0] > 0
        else f"a log range must start above 0, but got low={domain.log[0]}"
    )


class Domain(Settings):
    """The values a parameter may take: a logarithmic, a uniform or an integer range, or a list of choices."""

    log: Annotated[
        tuple[float, float] | None, BeforeValidator(_as_tuple), described_as("a list of two numbers, [low, high]")
    ] = None
    """Any number between the two, on a logarithmic scale: as many values are tried from 1e-4 to 1e-3 as from 1e-3 to
    1e-2. For learning rates and weight decay."""
    uniform: Annotated[
        tuple[float, float] | None, BeforeValidator(_as_tuple), described_as("a list of two numbers, [low, high]")
    ] = None
    """Any number between the two."""
    integer: Annotated[
        tuple[int, int] | None, BeforeValidator(_as_tuple), described_as("a list of two whole numbers, [low, high]")
    ] = Field(None, alias="int")
    """Any whole number from the first to the second."""
    choice: Annotated[
        tuple[Value, ...] | None,
        BeforeValidator(_as_tuple),
        described_as("a list whose items are strings, finite numbers, true or false"),
    ] = None
    """One of the values in the list."""

    rules = (
        Rule(frozenset(KINDS.values()), _several_kinds),
        Rule(frozenset({"choice"}), _no_real_choice),
        Rule(frozenset({"log", "uniform", "int"}), _not_in_order),
        Rule(frozenset({"log"}), _logarithm_of_nothing),
    )

    @model_validator(mode="before")
    @classmethod
    def _is_a_table(cls, value: Any) -> Any:
        if not isinstance(value, (dict, Domain)):
            raise ValueError(
                f"must be a range or a list of choices, like {{log = [1e-5, 1e-2]}}, but got {shown(value)}"
            )
        return value

    @property
    def range(self) -> tuple[float, float]:
        """The ends of a range; not for choices."""
        ends = self.log or self.uniform or self.integer
        assert ends is not None
        return ends

    @property
    def ends(self) -> tuple[Value, ...]:
        """The ends of a range, or all choices."""
        return self.choice if self.choice is not None else self.range

    def holds(self, value: object) -> bool:
        """Tells whether `value` can be proposed."""
        if self.choice is not None:
            return any(
                value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in self.choice
            )
        low, high = self.range
        if not isinstance(value, (float, int)) or isinstance(value, bool) or not low <= value <= high:
            return False
        return self.integer is None or value == int(value)

    def nearest(self, value: object) -> Value:
        """Returns `value`, or what the domain holds closest to it.

        "none", a bound that is never reached, is closest to the largest number. Where nothing compares, the first end
        or choice is returned.
        """
        if self.holds(value):
            return value  # type: ignore[return-value]  # what a domain holds is a Value
        numbers = [end for end in self.ends if is_number(end)]
        if numbers and value == NO_BOUND:
            return max(numbers)
        if not numbers or not is_number(value):
            return self.ends[0]
        if self.integer is not None:
            return min(max(round(value), self.integer[0]), self.integer[1])
        return min(numbers, key=lambda end: abs(end - value))

    def compares(self, value: object) -> bool:
        """Tells whether some value of the domain is nearer to `value` than others: a word that is no choice is not."""
        return self.holds(value) or ((is_number(value) or value == NO_BOUND) and any(map(is_number, self.ends)))

    def distribution(self) -> BaseDistribution:
        """Returns the domain as Optuna knows it."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.choice is not None:
            return CategoricalDistribution(self.choice)
        if self.integer is not None:
            return IntDistribution(*self.integer)
        return FloatDistribution(*self.range, log=self.log is not None)

    def describe(self) -> str:
        """Returns the domain in a few words, for people."""
        if self.choice is not None:
            return "one of " + ", ".join(str(value) for value in self.choice)
        low, high = self.range
        return f"{low:g} to {high:g}" + (
            ", logarithmic" if self.log is not None else ", whole numbers" if self.integer is not None else ""
        )


def covering(domains: Sequence[Domain]) -> Domain:
    """Returns the smallest domain that holds the values of all `domains`, which are of one kind."""
    first = domains[0]
    if len(domains) == 1:
        return first
    if first.choice is not None:
        choices = {(isinstance(value, bool), value): value for domain in domains for value in domain.ends}
        return first.model_copy(update={"choice": tuple(choices.values())})  # true is not 1
    ends = min(domain.range[0] for domain in domains), max(domain.range[1] for domain in domains)
    kind = next(name for name in KINDS if getattr(first, name) is not None)
    return first.model_copy(update={kind: ends})


def same_value(one: object, other: object) -> bool:
    """Tells whether two values are one: 1 is 1.0, but not true."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)
