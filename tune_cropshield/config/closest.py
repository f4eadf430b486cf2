"""Which known name somebody may have meant who wrote another one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What people write -> what they mean, where the two are not alike.
MEANT = {"gpu": "cuda"}


def closest(name: str, known: Iterable[str], count: int = 1) -> list[str]:
    """Returns up to `count` of the `known` names that are most like `name`, the closest first; none where none is.

    Case does not matter, nor whether words are joined by hyphens or underscores: a name that differs in nothing else
    is the only one returned.
    """
    spelled = {_plain(each): each for each in known}
    plain = _plain(name)
    if (same := spelled.get(plain, spelled.get(MEANT.get(plain, plain)))) is not None:
        return [same]
    return [spelled[found] for found in difflib.get_close_matches(plain, spelled, n=count)]


def did_you_mean(name: str, known: Iterable[str], count: int = 1) -> str:
    """Returns "did you mean resnet18 or resnet34? ", with a space behind it; "" where no known name is like `name`."""
    found = closest(name, known, count)
    return f"did you mean {' or '.join(found)}? " if found else ""


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")
