"""What differs between two tables of settings, by name and with both values: "epochs (2 then, 4 now)".

The same value in another spelling is no difference: 3 and 3.0, "8GB" and "8 GiB", a path from here and from the root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from tune_cropshield.config.branches import own_ranges
from tune_cropshield.config.domain import Domain
from tune_cropshield.config.settings import NOT_COMPARED
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.units import parse_budget, parse_duration
from tune_cropshield.errors import ConfigError

AMOUNTS: dict[str, Callable[[str], object]] = {"vram": parse_budget, "time_budget": parse_duration}  # name -> its value
PATHS = (
    "pretrained",
    "model",
    "loss",
    "optimizer",
    "schedule",
    "sampler",
    "pruning",
    "metric",
)  # may name a file of one's own


def settings_by_name(space: SearchSpace) -> dict[str, Any]:
    """Returns every setting of a search under its own name, a searched one as its `Domain`.

    Where the photographs come from is left out, and so are the folds, which [search] sets.
    """
    return {
        **space.data.model_dump(exclude={*NOT_COMPARED}),
        **space.trial_config().model_dump(),
        **space.search.model_dump(),
        **space.space,
        **{".".join((*table[1:], name)): domain for table, name, domain in own_ranges(space.when)},
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns what differs between two tables, a few words for each setting. One that is missing is None."""
    return [
        difference(name, then.get(name), now.get(name))
        for name in dict.fromkeys([*then, *now])
        if not is_same(name, then.get(name), now.get(name))
    ]


def difference(name: str, then: object, now: object) -> str:
    """Returns what is said of one setting that differs."""
    before, after = said(then), said(now)
    if before == after:  # beyond the digits that are shown
        before, after = str(then), str(now)
    return f"{name} ({before} then, {after} now)"


def is_same(name: str, one: object, other: object) -> bool:
    """Tells whether two values of the setting `name` mean the same."""
    if isinstance(one, Domain) and isinstance(other, Domain):
        return [_listed(value) for _, value in one] == [_listed(value) for _, value in other]
    if _listed(one) == _listed(other):
        return True
    if not (isinstance(one, str | os.PathLike) and isinstance(other, str | os.PathLike)):
        return False
    if name in AMOUNTS:
        try:
            return AMOUNTS[name](str(one)) == AMOUNTS[name](str(other))
        except ConfigError:  # another text, then
            return False
    return name in PATHS and _whole_path(one) == _whole_path(other)


def _listed(value: object) -> object:
    """Returns a value such that equal ones compare equal: true is not 1, a tuple is a list."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return value


def _whole_path(value: str | os.PathLike[str]) -> str:
    return os.path.realpath(os.path.expanduser(value))


def said(value: object) -> str:
    """Returns a setting's value as it is told."""
    if value is None or value == "":
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    return value.describe() if isinstance(value, Domain) else str(value)
