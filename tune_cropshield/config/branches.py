"""Ranges of a choice's own: `[space.when.optimizer.sgd] lr = ...` holds for the trials that choose sgd alone.

A choice that has such ranges decides on them; it stands in [space] itself, so that every trial has it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.config.domain import KINDS, Domain, Value
from tune_cropshield.config.faults import Origin

When = Mapping[str, Mapping[str, Mapping[str, Domain]]]  # choice -> one of its values, as `spelled` -> ranges there
Place = tuple[str, ...]


def spelled(value: object) -> str:
    """Returns a value as the key of a TOML table: true, 224, resnet18."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def where(values: Mapping[str, Value]) -> str:
    """Returns in words which trials are meant: "optimizer = sgd, image_size = 64"."""
    return ", ".join(f"{name} = {spelled(value)}" for name, value in values.items())


def own_ranges(when: When) -> Iterator[tuple[Place, str, Domain]]:
    """Yields each range of a choice's own: (the table that it stands in, its parameter, the range)."""
    for choice, tables in when.items():
        for value, ranges in tables.items():
            for name, domain in ranges.items():
                yield ("space", "when", choice, value), name, domain


def faults_of_when(space: Mapping[str, Domain], when: When, origin: Origin) -> list[str]:
    """Returns what is wrong with the tables of `when`: choices and values that are not there, ranges at odds."""
    faults = []
    for choice, tables in when.items():
        place = origin.of(("space", "when", choice))
        if choice not in space:
            choices = [name for name, domain in space.items() if domain.choice is not None]
            told = f"{did_you_mean(choice, choices)}choices in [space]: {', '.join(choices) or 'none'}"
            faults.append(f"{place}: is no choice in [space], and only those have ranges of their own; {told}")
            continue
        if space[choice].choice is None:
            faults.append(f"{place}: {choice} is a range in [space], and only choices have ranges of their own")
            continue
        values = [spelled(value) for value in space[choice].ends]
        faults += [
            f"{origin.of(('space', 'when', choice, value))}: is no choice of {choice}; {_meant(choice, value, values)}"
            f"its choices: {', '.join(values)}"
            for value in tables
            if value not in values
        ]
    of_choices = {choice: when[choice] for choice in when if choice in space and space[choice].choice is not None}
    return faults + _faults_of_ranges(space, of_choices, origin)


def _meant(choice: str, value: str, values: list[str]) -> str:
    """Returns what may be meant by a value that is not there. A key of TOML ends at its first dot outside of quotes."""
    longer = next((one for one in values if one.startswith(f"{value}.")), None)
    if longer is not None:
        return f'a name with dots needs quotes: [space.when.{choice}."{longer}"]; '
    return did_you_mean(value, values)


def _faults_of_ranges(space: Mapping[str, Domain], when: When, origin: Origin) -> list[str]:
    faults, kinds = [], {name: (origin.of(("space", name)), domain) for name, domain in space.items()}
    given_by: dict[str, Place] = {}
    for table, name, domain in own_ranges(when):
        place = origin.of((*table, name))
        if name in when:
            faults.append(f"{place}: has ranges of its own, so it can stand in [space] alone")
            continue
        other, known = kinds.setdefault(name, (place, domain))
        if _kind(known) != _kind(domain):
            faults.append(
                f"{place}: all ranges of a parameter must be of one kind, but this is {_kind(domain)} and {other} is "
                f"{_kind(known)}"
            )
        if given_by.setdefault(name, table)[2] != table[2]:
            faults.append(
                f"{place}: stands in {origin.of((*given_by[name], name))} too, and a trial may have both: give "
                f"{name} in the tables of one choice"
            )
    for name in space:
        if name not in given_by or name in when:
            continue
        choice = given_by[name][2]
        if all(name in when[choice].get(spelled(value), {}) for value in space[choice].ends):
            place = origin.of(("space", name))
            faults.append(
                f"{place}: no trial has it, since each choice of {choice} has a {name} of its own: leave it out"
            )
    return faults


def _kind(domain: Domain) -> str:
    return next((key for name, key in KINDS.items() if getattr(domain, name) is not None), "nothing")
