"""A search-space file read and checked: tables and flags in, a sound SearchSpace or all of its faults out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tune_cropshield.config.branches import When, faults_of_when, own_ranges, spelled
from tune_cropshield.config.domain import Domain
from tune_cropshield.config.faults import Location, broken_rules, checked_fields, overridden
from tune_cropshield.config.model_names import check_model_name
from tune_cropshield.config.searchable import CHOICES_ONLY, OWNED_BY_SEARCH, PLANNED, SEARCHABLE
from tune_cropshield.config.settings import MOST_EPOCHS, TrialConfig
from tune_cropshield.config.space import SearchSpace, with_choices_called
from tune_cropshield.config.space_faults import (
    faults_of_baseline,
    faults_of_ends,
    faults_of_grace,
    faults_of_places,
    faults_of_rules,
    faults_of_starts,
    first_whole_epoch,
    longest_warm_up,
)
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.errors import ConfigError

MOST_FAMILIES = 64  # combinations; each is checked, planned for and, on a GPU, measured before the first trial


def load_space(path: Path, overrides: dict[str, dict[str, Any]] | None = None) -> SearchSpace:
    """Returns the search space in `path`, with `overrides` ({"search": {"trials": 8}}), which came as flags, over it.

    Raises ConfigError with every fault at once: of form, of each range's ends, of each starting point.
    """
    return space_from(read_toml(path), overrides or {}, str(path))


def space_from(tables: dict[str, Any], overrides: dict[str, dict[str, Any]], file: str) -> SearchSpace:
    """Returns the search space in the tables of a file, as `load_space` does. file: its name in messages."""
    tables, origin = overridden(tables, overrides, file)
    tables = _judged_within_its_epochs(tables, overrides)
    space, faults, wrong = checked_fields(SearchSpace, tables, origin)
    faults += broken_rules(space, wrong, origin) + faults_of_places(space, origin)
    unusable = {str(place[4] if place[1] == "when" else place[1]) for place in wrong if _speaks_of_a_range(place)}
    unusable |= {name for name, domain in space.space.items() if broken_rules(domain, set(), origin)}
    for table, name, domain in own_ranges(space.when):
        broken = broken_rules(domain, wrong, origin, (*table, name))
        faults += broken
        unusable |= {name} if broken else set()
    unusable |= {name for name, known in space.domains().items() if name in CHOICES_ONLY and not _are_choices(known)}
    usable = _without_parameters(space, unusable)
    faults += faults_of_when(usable.space, _without_ranges(space.when, unusable), origin)
    if _num_families(usable) > MOST_FAMILIES:
        most = f"at most {MOST_FAMILIES}, since each has a memory plan of its own"
        names = " x ".join(dict.fromkeys(name for name in usable.domains() if name in (*usable.when, *PLANNED)))
        faults.append(f"{origin.of(('space',))}: there are {_num_families(usable)} combinations of {names}, {most}")
        raise ConfigError(list(dict.fromkeys(faults)))
    if ("space",) not in wrong:
        searched = list(space.domains())
        faults += faults_of_starts(usable, searched, unusable, origin)
        faults += faults_of_baseline(usable, searched, unusable, origin)

    own = {name: value for name, value in space.trial.items() if name not in OWNED_BY_SEARCH}
    trial, trial_faults, wrong_fixed = checked_fields(TrialConfig, own, origin.inside("trial"))
    not_searchable = {name for name in space.domains() if name not in SEARCHABLE}
    sound = _without_parameters(space, unusable | not_searchable)
    sound = sound.model_copy(update={"trial": {name: getattr(trial, name) for name in trial.model_fields_set}})
    ends_faults, wrong_ends = faults_of_ends(sound, origin)
    unknown = {str(place[0]) for place in wrong_fixed} | wrong_ends | unusable
    faults += trial_faults + ends_faults + faults_of_rules(_without_parameters(sound, wrong_ends), unknown, origin)
    if not faults:
        sound = _judged_in_time(sound)
        faults += faults_of_grace(sound, origin)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return _with_whole_names(sound)


def _with_whole_names(space: SearchSpace) -> SearchSpace:
    """Returns `space` with each network of a user's own in it under the whole path of its file, as in [trial]."""
    models = [str(value) for domain in space.domains().get("model", ()) for value in domain.ends]
    return with_choices_called("model", {name: check_model_name(name) for name in models}, space)


def _speaks_of_a_range(place: Location) -> bool:
    """Tells whether a place in a file is that of one range, or inside it."""
    return place[0] == "space" and len(place) > (4 if place[1:2] == ("when",) else 1)


def _are_choices(domains: tuple[Domain, ...]) -> bool:
    return all(domain.choice is not None for domain in domains)


def _without_ranges(when: When, names: set[str]) -> dict[str, dict[str, dict[str, Domain]]]:
    """Returns `when` without the tables of these choices and the ranges of these parameters."""
    return {
        choice: {
            value: {name: domain for name, domain in ranges.items() if name not in names}
            for value, ranges in tables.items()
        }
        for choice, tables in when.items()
        if choice not in names
    }


def _without_parameters(space: SearchSpace, names: set[str]) -> SearchSpace:
    """Returns `space` without these parameters, and without ranges that belong to no value of a choice."""
    left = {name: domain for name, domain in space.space.items() if name not in names}
    values = {name: [spelled(value) for value in domain.choice] for name, domain in left.items() if domain.choice}
    when = {
        choice: {
            value: {name: domain for name, domain in ranges.items() if name not in space.when}
            for value, ranges in tables.items()
            if value in values[choice]
        }
        for choice, tables in _without_ranges(space.when, names).items()
        if choice in values
    }
    return space.model_copy(update={"space": left, "when": when})


def _num_families(space: SearchSpace) -> int:
    """Returns how many combinations `SearchSpace.families` would be, at most."""
    deciding = {name: known for name, known in space.domains().items() if name in (*space.when, *PLANNED)}
    return math.prod(max(len(domain.ends) for domain in known) for known in deciding.values())


def _judged_within_its_epochs(tables: dict[str, Any], overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns `tables` with grace_epochs "auto" where a flag has made trials shorter than the file's grace_epochs."""
    if "epochs" not in overrides.get("search", {}) or not isinstance(tables.get("search"), dict):
        return tables
    grace, epochs = tables["search"].get("grace_epochs"), tables["search"]["epochs"]
    too_long = isinstance(grace, int) and isinstance(epochs, int) and 1 <= epochs < grace <= MOST_EPOCHS
    return {**tables, "search": {**tables["search"], "grace_epochs": "auto"}} if too_long else tables


def _judged_in_time(space: SearchSpace) -> SearchSpace:
    """Returns `space` with grace_epochs until every trial trains its whole network and is warm, if "auto" is less."""
    needed = max(math.ceil(longest_warm_up(space)), first_whole_epoch(space))
    if space.search.grace_epochs != "auto" or space.search.first_step >= needed:
        return space
    return space.model_copy(update={"search": space.search.model_copy(update={"grace_epochs": needed})})
