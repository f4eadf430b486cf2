"""Search-space files: what is fixed, what is searched, and how long.

A file is data only (TOML). It becomes typed domains, checked at both ends of every range, and then a dict of Optuna
distributions, which survives pickling where functions do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import count, islice, product, takewhile
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.config.domain import NO_BOUND, Domain, Value
from tune_cropshield.config.faults import (
    FIELDS_ONLY,
    Origin,
    Rule,
    Settings,
    broken_rules,
    checked_fields,
    described_as,
    overridden,
    shown,
    unknown_name,
)
from tune_cropshield.config.registry import checked_name
from tune_cropshield.config.settings import MOST_EPOCHS, DataConfig, Epochs, Fit, Parts, RunConfig, Seed, TrialConfig
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.config.units import parse_budget, parse_duration
from tune_cropshield.errors import ConfigError

SETTINGS = "search.toml"  # in a search's folder: its space, as it was run

# Settings that cannot be searched: the memory plan is made for one model, size and precision, and the rest is the
# search's own business.
FIXED = ("model", "image_size", "progressive_sizes", "precision", "channels_last", "freeze_backbone", "pretrained")
OWNED_BY_SEARCH = {
    "epochs": "[search] epochs",
    "seed": "[search] seed",
    "threads": "the search",
    "micro_batch": "the plan",
    "accumulation": "the plan",
}
OF_PHOTOGRAPHS = ("fit",)  # of [data]; what else is searched is of [trial]
SEARCHABLE = [
    *(name for name in TrialConfig.model_fields if name not in FIXED and name not in OWNED_BY_SEARCH),
    *OF_PHOTOGRAPHS,
]
Grace = Annotated[
    Annotated[int, Field(ge=1, le=MOST_EPOCHS)] | Literal["auto"], described_as('a whole number from 1, or "auto"')
]
TrialsAtOnce = Annotated[
    Annotated[int, Field(ge=1, le=1024)] | Literal["auto"], described_as('a whole number from 1 to 1024, or "auto"')
]
MOST_COMBINATIONS = 10_000  # of values that a rule is tried on


def _grace_is_too_long(search: SearchSettings) -> str | None:
    holds = search.first_step <= search.epochs
    return None if holds else f"`grace_epochs <= epochs` must hold, but got {search.grace_epochs} and {search.epochs}"


def _parts_of_two_kinds(search: SearchSettings) -> str | None:
    if search.folds == 1 or search.replicates == 1:
        return None
    return f"at most one of `folds` and `replicates` can be above 1, but got {search.folds} and {search.replicates}"


class SearchSettings(Settings):
    """How long is searched, how, and on what."""

    trials: int = Field(40, ge=1, le=1_000_000)
    """Trainings with different settings, in all."""
    epochs: Epochs = Field(25, ge=1)
    """Epochs of a trial that is not stopped early."""
    # "auto" is a quarter of the epochs: before, an accuracy says little of the last one (the best of what was played on
    # recorded trainings, results/replay_2026-11).
    grace_epochs: Grace = "auto"
    """Epochs before which no trial is stopped early, at least the warm-up; "auto" is a quarter of `epochs`."""
    # eta of https://arxiv.org/abs/1810.05934
    reduction_factor: float = Field(2.0, ge=1.5)
    """At each pruning step the best 1 in so many trials continue; the next step is so many times later."""
    # A trial's value is the mean over its parts, and each part's end is a pruning step.
    folds: Parts = Field(1, ge=1)
    """Cross-validation: each trial trains on so many folds, one after another, and counts with their mean."""
    replicates: Parts = Field(1, ge=1)
    """Each trial trains with so many seeds on the one split, one after another, and counts with their mean."""
    baseline: bool = True
    """Train the reference setting as trial 0, to its end, so that the gain is measured against it."""
    sampler: str = "auto"
    """What proposes settings: "gp" (Gaussian process) and "tpe" learn from the trials so far, "random" does not; "auto"
    is a Gaussian process up to 200 trials and 20 searched settings, and "tpe" beyond."""
    pruning: str = "asha"
    """Which trials are stopped early: "asha" is successive halving, "ray-asha" is Ray Tune's own, "none" stops none."""
    pairs: Literal["fastest", "all"] = "fastest"
    """For each effective batch, train with the fastest micro_batch x accumulation that fits, or search all of them."""
    seed: Seed = 0
    """Seed of the sampler and of every trial."""
    time_budget: str = Field("", examples=["45s", "90m", "2h"])
    """Time for everything, from the command to the report, resumed runs included; "" sets no limit."""
    finish: bool | None = None
    """Train the winner again, longer, after the trials. Left out: if there is a time budget, in the rest of it."""
    stop_when_flat: bool = False
    """End when more trials are not expected to gain more than the noise of the validation accuracy."""
    vram: str = Field("auto", examples=["8GB", "4GiB", "rtx4060-laptop"])
    """GPU memory that a trial may use; "auto" is what is free when the search starts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What to train on; "auto" is the GPU where there is one."""
    trials_per_gpu: TrialsAtOnce = "auto"
    """Trials at the same time on each GPU, or on the CPU; "auto" is one on a GPU, and one for each core of a CPU."""

    rules = (
        Rule(frozenset({"grace_epochs", "epochs"}), _grace_is_too_long),
        Rule(frozenset({"folds", "replicates"}), _parts_of_two_kinds),
    )

    @field_validator("sampler", "pruning")
    @classmethod
    def _can_be_found(cls, name: str, info: ValidationInfo) -> str:
        assert info.field_name is not None
        return checked_name(info.field_name, name)

    @field_validator("time_budget")
    @classmethod
    def _is_a_duration(cls, text: str) -> str:
        if text:
            parse_duration(text)
        return text

    @field_validator("vram")
    @classmethod
    def _is_an_amount(cls, text: str) -> str:
        parse_budget(text)
        return text

    @property
    def finishes(self) -> bool:
        """Whether the winner is trained on after the trials."""
        return bool(self.time_budget) if self.finish is None else self.finish

    @property
    def num_parts(self) -> int:
        """How many trainings a trial is: one, or its folds or replicates."""
        return self.folds * self.replicates

    @property
    def trial_epochs(self) -> int:
        """The epochs of a trial that is never pruned, those of all its parts together."""
        return self.epochs * self.num_parts

    @property
    def first_step(self) -> int:
        """The epochs before which no trial is pruned: what is set, else a quarter of a trial's, rounded up."""
        return math.ceil(self.epochs / 4) if self.grace_epochs == "auto" else self.grace_epochs

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which halving judges a trial: those of its first part, then each part's end but the last."""
        return pruning_epochs(self.epochs, self.first_step, self.reduction_factor, self.num_parts)

    @property
    def pruning_steps(self) -> tuple[int, ...]:
        """The epochs after which successive halving stops the worse trials; none under another pruning rule."""
        return self.rungs if self.pruning == "asha" else ()

    def parts_of(self, run: RunConfig) -> list[RunConfig]:
        """Returns the trainings that a trial with the settings `run` is: itself, or one for each fold or seed."""
        if self.folds > 1:
            folds = [run.data.model_copy(update={"folds": self.folds, "fold": fold}) for fold in range(self.folds)]
            return [run.model_copy(update={"data": data}) for data in folds]
        seeds = [(run.trial.seed + replicate) % 2**32 for replicate in range(self.replicates)]
        return [run.model_copy(update={"trial": run.trial.model_copy(update={"seed": seed})}) for seed in seeds]

    @property
    def pruned_shares(self) -> dict[int, float]:
        """{pruning step: the share of the trials that are to be stopped there}."""
        return dict.fromkeys(self.pruning_steps, 1 - 1 / self.reduction_factor)


def pruning_epochs(epochs: int, grace_epochs: int, reduction_factor: float, parts: int = 1) -> tuple[int, ...]:
    """Returns the epochs after which successive halving judges a trial.

    They are `grace_epochs`, then each `reduction_factor` times the last, rounded up, and all below `epochs`. Of a trial
    in several parts of `epochs` each, the ends of all parts but the last follow.
    """
    milestones = takewhile(lambda milestone: milestone < epochs, (grace_epochs * reduction_factor**k for k in count()))
    return (*(math.ceil(milestone) for milestone in milestones), *(epochs * part for part in range(1, parts)))


class SearchSpace(Settings):
    """A whole search-space file."""

    data: DataConfig = DataConfig()
    """Which photographs, how they are split, and how they become square."""
    trial: dict[str, Any] = {}
    """How a network is trained: what is the same in every trial."""
    space: dict[str, Domain] = {}
    """What is searched: for each setting a range or a list of choices, like `lr = {log = [1e-5, 1e-2]}`."""
    search: SearchSettings = SearchSettings()
    """How long is searched, how, and on what."""
    baseline: Annotated[dict[str, Value], described_as("a table of parameters and values, like lr = 1e-4")] | None = (
        None
    )
    """Your own setting to measure the gain against, in place of the reference setting: a value for each searched
    setting, or for some of them; the others have the value of `[trial]`, or their default. It is trial 0."""
    start: Annotated[
        tuple[dict[str, Value], ...],
        BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        described_as("[[start]] tables of parameters and values, like lr = 1e-4"),
    ] = ()
    """Settings that are tried first, in this order: a value for each searched setting, or for some of them."""

    def trial_config(self, values: dict[str, Any] | None = None) -> TrialConfig:
        """Returns the settings of a trial with the searched parameters set to `values`.

        Raises pydantic's ValidationError.
        """
        return TrialConfig.model_validate(self._trial_values(values or {}))

    def _trial_values(self, values: dict[str, Any]) -> dict[str, Any]:
        own = {name: value for name, value in values.items() if name not in OF_PHOTOGRAPHS}
        return {**self.trial, "epochs": self.search.epochs, "seed": self.search.seed, **own}

    def data_config(self, values: dict[str, Any]) -> DataConfig:
        """Returns which photographs a trial is trained on, and how they are prepared, with the searched `values`."""
        return self.data.model_copy(update={name: values[name] for name in OF_PHOTOGRAPHS if name in values})

    def nearest(self, name: str, value: object) -> Value:
        """Returns what can be proposed for the searched parameter `name` nearest to `value`.

        An early stopping of 0 waits without a bound.
        """
        domain = self.space[name]
        if name == "early_stopping" and value == 0 and not domain.holds(value):
            return domain.nearest(NO_BOUND)
        return domain.nearest(value)

    def fitted(self, setting: Mapping[str, Any]) -> dict[str, Value]:
        """Returns what `setting` says of what is searched, each value as the nearest that can be proposed.

        What compares with nothing there is left out.
        """
        return {
            name: self.nearest(name, setting[name])
            for name, domain in self.space.items()
            if name in setting and domain.compares(setting[name])
        }

    @property
    def fits(self) -> tuple[Fit, ...]:
        """How photographs that are not square are fitted: what is searched, or what is set."""
        return self.space["fit"].ends if "fit" in self.space else (self.data.fit,)  # type: ignore[return-value]


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
    faults += broken_rules(space, wrong, origin) + _misplaced(space, origin)
    unusable = {str(place[1]) for place in wrong if place[0] == "space" and len(place) > 1}
    unusable |= {name for name, domain in space.space.items() if broken_rules(domain, set(), origin)}
    if ("space",) not in wrong:
        faults += _faults_of_starts(space, unusable, origin) + _faults_of_baseline(space, unusable, origin)

    own = {name: value for name, value in space.trial.items() if name not in OWNED_BY_SEARCH}
    trial, trial_faults, wrong_fixed = checked_fields(TrialConfig, own, origin.inside("trial"))
    sound = space.model_copy(
        update={
            "trial": {name: getattr(trial, name) for name in trial.model_fields_set},
            "space": {
                name: domain for name, domain in space.space.items() if name in SEARCHABLE and name not in unusable
            },
        }
    )
    ends_faults, wrong_ends = _faults_of_ends(sound, origin)
    unknown = {str(place[0]) for place in wrong_fixed} | wrong_ends | unusable
    faults += trial_faults + ends_faults + _faults_of_rules(sound, unknown, origin)
    if not faults:
        sound = _judged_in_time(sound)
        faults += _faults_of_grace(sound, origin)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return sound


def _judged_within_its_epochs(tables: dict[str, Any], overrides: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns `tables` with grace_epochs "auto" where a flag has made trials shorter than the file's grace_epochs."""
    if "epochs" not in overrides.get("search", {}) or not isinstance(tables.get("search"), dict):
        return tables
    grace, epochs = tables["search"].get("grace_epochs"), tables["search"]["epochs"]
    too_long = isinstance(grace, int) and isinstance(epochs, int) and 1 <= epochs < grace <= MOST_EPOCHS
    return {**tables, "search": {**tables["search"], "grace_epochs": "auto"}} if too_long else tables


def _misplaced(space: SearchSpace, origin: Origin) -> list[str]:
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
    for name in space.space:
        if name not in SEARCHABLE:
            why = "is the same for all trials of a search" if name in FIXED else "cannot be searched"
            faults.append(f"{origin.of(('space', name))}: {why}; {unknown_name(name, SEARCHABLE)}")
        elif name in space.trial:
            faults.append(f"{origin.of(('space', name))}: is set in [trial] too: it is either fixed or searched")
        elif name in OF_PHOTOGRAPHS and getattr(space.data, name) != DataConfig.model_fields[name].default:
            faults.append(f"{origin.of(('space', name))}: is set in [data] too: it is either fixed or searched")
    return faults


def _faults_of_ends(space: SearchSpace, origin: Origin) -> tuple[list[str], set[str]]:
    """Returns which ends of ranges and which choices no trial can be set to, and their parameters."""
    faults, wrong = [], set()
    for name, domain in space.space.items():
        for value in domain.ends:
            settings = DataConfig if name in OF_PHOTOGRAPHS else TrialConfig
            _, found, _ = checked_fields(settings, {name: value}, origin.inside("space"))
            if found:
                faults += found
                wrong.add(name)
    return faults, wrong


def _faults_of_rules(space: SearchSpace, wrong: set[str], origin: Origin) -> list[str]:
    """Returns the rules between settings that some combination of the searched values would break."""
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
                space._trial_values(dict(zip(searched, values, strict=True))), context=FIELDS_ONLY
            )
            if (fault := rule.fault(trial)) is not None:
                faults.append(f"{table}: {fault}")
                break
    return faults


def _samples(domain: Domain) -> Iterator[Value]:
    """Yields the values that a rule is tried on: the ends or choices, and of whole numbers an odd and an even one."""
    yield from domain.ends
    if domain.integer is not None:
        yield domain.integer[0] + 1


def _faults_of_starts(space: SearchSpace, unusable: set[str], origin: Origin) -> list[str]:
    faults = []
    for number, start in enumerate(space.start):
        for name, value in start.items():
            place = origin.of(("start", number, name))
            if name in unusable:
                continue
            if name not in space.space:
                meant = did_you_mean(name, space.space)
                faults.append(f"{place}: is not searched; {meant}searched here: {', '.join(space.space) or 'nothing'}")
            elif not space.space[name].holds(value):
                faults.append(f"{place}: {shown(value)} is not in the space ({space.space[name].describe()})")
    return faults


def _faults_of_baseline(space: SearchSpace, unusable: set[str], origin: Origin) -> list[str]:
    """Returns what of [baseline] no trial can be; what is not searched may stand there with the value that all have."""
    faults = []
    defaults = {name: field.default for name, field in TrialConfig.model_fields.items()}
    fixed = defaults | {name: getattr(space.data, name) for name in OF_PHOTOGRAPHS} | space.trial
    for name, value in (space.baseline or {}).items():
        place = origin.of(("baseline", name))
        if name in unusable:
            continue
        if name in space.space:
            if not space.space[name].holds(value):
                told = f"{shown(value)} is not in the space ({space.space[name].describe()}): widen it, or change the"
                faults.append(f"{place}: {told} baseline")
        elif name in OWNED_BY_SEARCH:
            faults.append(f"{place}: is set by {OWNED_BY_SEARCH[name]}")
        elif name not in fixed:
            faults.append(f"{place}: is no setting; {did_you_mean(name, fixed)}searched here: {', '.join(space.space)}")
        elif fixed[name] != value or isinstance(value, bool) != isinstance(fixed[name], bool):
            faults.append(f"{place}: is not searched, and all trials have {shown(fixed[name])}, but got {shown(value)}")
    return faults


def _judged_in_time(space: SearchSpace) -> SearchSpace:
    """Returns `space` with grace_epochs until every trial trains its whole network and is warm, if "auto" is less."""
    needed = max(math.ceil(_longest_warm_up(space)), _first_whole_epoch(space))
    if space.search.grace_epochs != "auto" or space.search.first_step >= needed:
        return space
    return space.model_copy(update={"search": space.search.model_copy(update={"grace_epochs": needed})})


def _longest_warm_up(space: SearchSpace) -> float:
    """Returns the epochs that a trial warms up at most, no more than it has."""
    return min(max(float(value) for value in _values_of("warmup_epochs", space)), space.search.epochs)


def _first_whole_epoch(space: SearchSpace) -> int:
    """Returns the first epoch in which every trial trains its whole network, from 1."""
    return max(int(value) for value in _values_of("unfreeze_epochs", space)) + 1


def _faults_of_grace(space: SearchSpace, origin: Origin) -> list[str]:
    """Returns that a trial could be judged while it warms up, or while its backbone is frozen."""
    rule = Rule(frozenset({"grace_epochs", "epochs"}), lambda search: None)
    place, grace, warm_up = origin.of_rule(("search",), rule), space.search.first_step, _longest_warm_up(space)
    faults = []
    if grace < warm_up:
        faults.append(
            f"{place}: `grace_epochs >= warmup_epochs` must hold (no trial is stopped while it warms up), but got "
            f"{grace} and {warm_up:g}"
        )
    if grace < (first := _first_whole_epoch(space)):
        faults.append(
            f"{place}: `grace_epochs > unfreeze_epochs` must hold (no trial is stopped while its backbone is frozen), "
            f"but got {grace} and {first - 1}"
        )
    return faults


def _values_of(name: str, space: SearchSpace) -> tuple[Any, ...]:
    return space.space[name].ends if name in space.space else (getattr(space.trial_config(), name),)
