"""What is wrong with a search space: settings in the wrong table, ends and combinations that no trial can be set to,
starting points and a baseline outside of it, trials that would be judged too early.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice, product
from typing import Any

from tune_cropshield.config.branches import own_ranges, spelled, where
from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.config.domain import Domain, Value, same_value
from tune_cropshield.config.faults import FIELDS_ONLY, Origin, Rule, checked_fields, shown, unknown_name
from tune_cropshield.config.searchable import CHOICES_ONLY, FIXED, OF_PHOTOGRAPHS, OWNED_BY_SEARCH, PLANNED, SEARCHABLE
from tune_cropshield.config.settings import DataConfig, TrialConfig
from tune_cropshield.config.space import SearchSpace

LIKE = {"model": '["resnet18", "resnet34"]', "image_size": "[128, 224]"}
MOST_COMBINATIONS = 10_000  # of values that a rule is tried on


def faults_of_places(space: SearchSpace, origin: Origin) -> list[str]:
    """Returns what stands in the wrong table, or cannot be searched."""
    faults = [
        f"{origin.of(('trial', name))}: is set by {OWNED_BY_SEARCH[name]}"
        for name in space.trial
        if name in OWNED_BY_SEARCH
    ]
    faults += [
        f"{origin.of(('data', name))}: is set by [search] folds"
        for name in ("folds", "fold")
        if name in space.data.model_fields_set and getattr(space.data, name) != DataConfig.model_fields[name].default
    ]
    places = [(("space",), name, domain) for name, domain in space.space.items()]
    for table, name, domain in [*places, *own_ranges(space.when)]:
        place = origin.of((*table, name))
        everywhere = table == ("space",) or _is_always_searched(space, name)
        if name not in SEARCHABLE:
            why = "is the same for all trials of a search" if name in FIXED else "cannot be searched"
            faults.append(f"{place}: {why}; {unknown_name(name, SEARCHABLE)}")
        elif name in CHOICES_ONLY and domain.choice is None:
            faults.append(f"{place}: can only be chosen from a list, like {{choice = {LIKE[name]}}}")
        elif name in space.trial and everywhere:
            fixed = origin.of(("trial", name))
            flag = f" ({fixed})" if fixed.startswith("--") else ""
            faults.append(f"{place}: is set in [trial] too{flag}: it is either fixed or searched")
        elif (
            name in OF_PHOTOGRAPHS and everywhere and getattr(space.data, name) != DataConfig.model_fields[name].default
        ):
            faults.append(f"{place}: is set in [data] too: it is either fixed or searched")
        elif name == "image_size" and "progressive_sizes" in space.trial:
            faults.append(f"{place}: progressive_sizes in [trial] sets the size of images: leave one of the two out")
    return faults


def _is_always_searched(space: SearchSpace, name: str) -> bool:
    """Tells whether each value of some choice has a range of its own for the parameter `name`."""
    chosen = {choice: space.space[choice].choice for choice in space.when if choice in space.space}
    return name in space.space or any(
        values is not None and all(name in space.when[choice].get(spelled(value), {}) for value in values)
        for choice, values in chosen.items()
    )


def faults_of_ends(space: SearchSpace, origin: Origin) -> tuple[list[str], set[str]]:
    """Returns which ends of ranges and which choices no trial can be set to, and their parameters."""
    faults, wrong = [], set()
    places = [(("space",), name, domain) for name, domain in space.space.items()]
    for table, name, domain in [*places, *own_ranges(space.when)]:
        for value in domain.ends:
            settings = DataConfig if name in OF_PHOTOGRAPHS else TrialConfig
            _, found, _ = checked_fields(settings, {name: value}, origin.inside(*table))
            if found:
                faults += found
                wrong.add(name)
    return faults, wrong


def faults_of_rules(space: SearchSpace, wrong: set[str], origin: Origin) -> list[str]:
    """Returns the rules between settings that some combination of the searched values would break.

    A rule that only some of the families break is told once, with the first that does.
    """
    families = space.families
    broken: dict[str, list[Mapping[str, Value]]] = {}
    for family in families:
        for fault, fields in _faults_of_rules_in(space.narrowed(family), wrong, origin):
            spoken_of = {name: value for name, value in family.items() if name in fields}
            broken.setdefault(fault, []).append(spoken_of or family)
    return [
        fault if len(at_fault) == len(families) else f"{fault} (where {where(at_fault[0])})"
        for fault, at_fault in broken.items()
    ]


def _faults_of_rules_in(space: SearchSpace, wrong: set[str], origin: Origin) -> list[tuple[str, frozenset[str]]]:
    """Returns the same of a space of one family, each with the settings that its rule speaks of."""
    faults = []
    for rule in TrialConfig.rules:
        if rule.fields & wrong:
            continue
        searched = [name for name in space.space if name in rule.fields]
        table = (
            f"{origin.file}: {' and '.join(f'space.{name}' for name in searched)}"
            if searched
            else origin.of_rule(("trial",), rule)
        )
        for values in islice(product(*(_samples(space.space[name]) for name in searched)), MOST_COMBINATIONS):
            trial = TrialConfig.model_validate(
                space.trial_values(dict(zip(searched, values, strict=True))), context=FIELDS_ONLY
            )
            if (fault := rule.fault(trial)) is not None:
                faults.append((f"{table}: {fault}", rule.fields))
                break
    return faults


def _samples(domain: Domain) -> Iterator[Value]:
    """Yields the values that a rule is tried on: the ends or choices, and of whole numbers an odd and an even one."""
    yield from domain.ends
    if domain.integer is not None:
        yield domain.integer[0] + 1


def faults_of_starts(space: SearchSpace, searched: list[str], unusable: set[str], origin: Origin) -> list[str]:
    """Returns what of the [[start]] tables no trial can be."""
    faults, domains = [], space.domains()
    for number, start in enumerate(space.start):
        found, usable = [], {name: value for name, value in start.items() if name not in unusable}
        for name, value in usable.items():
            place = origin.of(("start", number, name))
            if name not in domains:
                meant = did_you_mean(name, searched)
                found.append(f"{place}: is not searched; {meant}searched here: {', '.join(searched) or 'nothing'}")
            elif not any(domain.holds(value) for domain in domains[name]):
                found.append(f"{place}: {shown(value)} is not in the space ({_described(domains[name])})")
        if not found and space.family_of(usable) is None:
            found = [
                f"{origin.of(('start', number))}: no trial can be so: {why}" for why in _in_no_family(space, usable)
            ]
        faults += found
    return faults


def _in_no_family(space: SearchSpace, start: Mapping[str, Value]) -> list[str]:
    """Returns why no family has all values of `start`, by the first that has what it says of the choices."""
    said = {name: value for name, value in start.items() if name in (*space.when, *PLANNED)}
    family = space.family_of(said)
    if family is None:
        return [f"{where(said)} do not go together"]
    domains, found = space.domains_of(family), []
    for name, value in start.items():
        if name not in domains:
            found.append(f"{name} is not searched where {where(family)}")
        elif name not in family and not domains[name].holds(value):
            found.append(
                f"{name} = {shown(value)} is not in the space where {where(family)} ({domains[name].describe()})"
            )
    return found


def _described(domains: tuple[Domain, ...]) -> str:
    return " or ".join(dict.fromkeys(domain.describe() for domain in domains))


def faults_of_baseline(space: SearchSpace, searched: list[str], unusable: set[str], origin: Origin) -> list[str]:
    """Returns what of [baseline] no trial can be; what is not searched may stand there with the value that all have."""
    faults: list[str] = []
    if space.baseline is None:
        return faults
    family, fixed = space.family_of_baseline(), space.fixed()
    domains = space.domains_of(family)
    only = f" where {where(family)}" if family else ""
    for name, value in space.baseline.items():
        place = origin.of(("baseline", name))
        if name in unusable:
            continue
        if name in domains:
            if not domains[name].holds(value) or (name in family and not same_value(family[name], value)):
                here = "" if name in family else only
                told = f"{shown(value)} is not in the space{here} ({domains[name].describe()})"
                faults.append(f"{place}: {told}: widen it, or change the baseline")
        elif name in OWNED_BY_SEARCH:
            faults.append(f"{place}: is set by {OWNED_BY_SEARCH[name]}")
        elif name not in fixed:
            faults.append(f"{place}: is no setting; {did_you_mean(name, fixed)}searched here: {', '.join(searched)}")
        elif not same_value(fixed[name], value):
            told = f"all trials{only} have {shown(fixed[name])}, but got {shown(value)}"
            faults.append(f"{place}: is not searched{only and ' there'}, and {told}")
    return faults


def faults_of_grace(space: SearchSpace, origin: Origin) -> list[str]:
    """Returns that a trial could be judged while it warms up, or while its backbone is frozen."""
    rule = Rule(frozenset({"grace_epochs", "epochs"}), lambda search: None)
    place, grace, warm_up = origin.of_rule(("search",), rule), space.search.first_step, longest_warm_up(space)
    faults = []
    if grace < warm_up:
        faults.append(
            f"{place}: `grace_epochs >= warmup_epochs` must hold (no trial is stopped while it warms up), but got "
            f"{grace} and {warm_up:g}"
        )
    if grace < (first := first_whole_epoch(space)):
        faults.append(
            f"{place}: `grace_epochs > unfreeze_epochs` must hold (no trial is stopped while its backbone is frozen), "
            f"but got {grace} and {first - 1}"
        )
    return faults


def longest_warm_up(space: SearchSpace) -> float:
    """Returns the epochs that a trial warms up at most, no more than it has."""
    return min(max(map(float, _values_of("warmup_epochs", space))), space.search.epochs)


def first_whole_epoch(space: SearchSpace) -> int:
    """Returns the first epoch in which every trial trains its whole network, from 1."""
    return max(map(int, _values_of("unfreeze_epochs", space))) + 1


def _values_of(name: str, space: SearchSpace) -> list[Any]:
    """Returns the ends of the ranges and the fixed values that a setting has in the trials of `space`."""
    of_family = [space.narrowed(family) for family in space.families]
    return [
        value
        for one in of_family
        for value in (one.space[name].ends if name in one.space else (getattr(one.trial_config(), name),))
    ]
