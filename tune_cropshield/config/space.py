"""What a search space is: what is fixed, what is searched, and how long.

It is data only: typed domains, and then a dict of Optuna distributions, which survives pickling where functions do not.
space_file.py reads and checks one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import count, product, takewhile
from typing import Annotated, Any, Literal

from pydantic import (
    AliasPath,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from tune_cropshield.config.branches import own_ranges, spelled
from tune_cropshield.config.domain import NO_BOUND, Domain, Value, same_value
from tune_cropshield.config.faults import (
    FIELDS_ONLY,
    Rule,
    Settings,
    described_as,
)
from tune_cropshield.config.goals import OF_CLASSES, Goal, goal_named
from tune_cropshield.config.registry import checked_name
from tune_cropshield.config.searchable import OF_PHOTOGRAPHS, PLANNED
from tune_cropshield.config.settings import MOST_EPOCHS, DataConfig, Epochs, Fit, Parts, RunConfig, Seed, TrialConfig
from tune_cropshield.config.units import parse_budget, parse_duration

SETTINGS = "search.toml"  # in a search's folder: its space, as it was run

Grace = Annotated[
    Annotated[int, Field(ge=1, le=MOST_EPOCHS)] | Literal["auto"], described_as('a whole number from 1, or "auto"')
]
TrialsAtOnce = Annotated[
    Annotated[int, Field(ge=1, le=1024)] | Literal["auto"], described_as('a whole number from 1 to 1024, or "auto"')
]


def _grace_is_too_long(search: SearchSettings) -> str | None:
    holds = search.first_step <= search.epochs
    return None if holds else f"`grace_epochs <= epochs` must hold, but got {search.grace_epochs} and {search.epochs}"


def _parts_of_two_kinds(search: SearchSettings) -> str | None:
    if search.folds == 1 or search.replicates == 1:
        return None
    return f"at most one of `folds` and `replicates` can be above 1, but got {search.folds} and {search.replicates}"


def _noise_is_not_known(search: SearchSettings) -> str | None:
    if not search.stop_when_flat or search.metric in OF_CLASSES:
        return None
    return (
        f"`stop_when_flat` needs a metric whose noise is known ({', '.join(OF_CLASSES)}), but got "
        f"{search.metric}: leave it out"
    )


class SearchSettings(Settings):
    """How long is searched, how, and on what."""

    trials: int = Field(40, ge=1, le=1_000_000)
    """Trainings with different settings, in all."""
    epochs: Epochs = Field(25, ge=1)
    """Epochs of a trial that is not stopped early."""
    metric: str = "val_acc"
    """What is searched for: it decides the best epoch and the kept weights, early stopping, pruning, what the sampler
    learns from, and the winner. Lower is better for "val_loss", and for your own where it says so."""
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
    """End when more trials are not expected to gain more than the noise of the validation photographs."""
    vram: str = Field("auto", examples=["8GB", "4GiB", "rtx4060-laptop"])
    """GPU memory that a trial may use; "auto" is what is free when the search starts."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What to train on; "auto" is the GPU where there is one."""
    trials_per_gpu: TrialsAtOnce = "auto"
    """Trials at the same time on each GPU, or on the CPU; "auto" is one on a GPU, and one for each core of a CPU."""

    rules = (
        Rule(frozenset({"grace_epochs", "epochs"}), _grace_is_too_long),
        Rule(frozenset({"folds", "replicates"}), _parts_of_two_kinds),
        Rule(frozenset({"stop_when_flat", "metric"}), _noise_is_not_known),
    )

    @field_validator("sampler", "pruning", "metric")
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


def _without_when(table: object) -> object:
    return {name: value for name, value in table.items() if name != "when"} if isinstance(table, dict) else table


class SearchSpace(Settings):
    """A whole search-space file."""

    data: DataConfig = DataConfig()
    """Which photographs, how they are split, and how they become square."""
    trial: dict[str, Any] = {}
    """How a network is trained: what is the same in every trial."""
    space: Annotated[dict[str, Domain], BeforeValidator(_without_when)] = {}
    """What is searched: for each setting a range or a list of choices, like `lr = {log = [1e-5, 1e-2]}`."""
    when: dict[str, dict[str, dict[str, Domain]]] = Field({}, validation_alias=AliasPath("space", "when"))
    """Ranges that hold only for one value of a choice: `[space.when.optimizer.sgd]` for the trials with SGD."""
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

    @model_serializer(mode="wrap")
    def _with_when_in_space(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Returns the tables as a file has them: `when` stands in `space`."""
        tables: dict[str, Any] = write(self)
        when = tables.pop("when")
        return {**tables, "space": {**tables["space"], "when": when}} if when else tables

    def domains_of(self, values: Mapping[str, Any]) -> dict[str, Domain]:
        """Returns what is searched in trials with these `values` of the choices that have ranges of their own.

        A choice that `values` does not speak of adds nothing.
        """
        found = dict(self.space)
        for choice, tables in self.when.items():
            if choice in values:
                found |= tables.get(spelled(values[choice]), {})
        return found

    @property
    def families(self) -> tuple[dict[str, Value], ...]:
        """The combinations of the choices that have ranges of their own or decide on the network and its images.

        There is one, of nothing, where no such choice is searched. Every trial belongs to just one of them: it has
        these values.
        """
        first = {name: domain for name, domain in self.space.items() if name in self.when or name in PLANNED}
        found = []
        for values in self._combinations(first):
            domains = self.domains_of(values)
            found += [
                {**values, **more}
                for more in self._combinations({n: domains[n] for n in domains if n in PLANNED and n not in values})
            ]
        return tuple(found)

    @staticmethod
    def _combinations(choices: Mapping[str, Domain]) -> list[dict[str, Value]]:
        return [dict(zip(choices, values, strict=True)) for values in product(*(one.ends for one in choices.values()))]

    def family_of(self, values: Mapping[str, Any]) -> dict[str, Value] | None:
        """Returns the first of the families that has all of `values`, which may be those of a part of a trial's
        parameters; None where none has.
        """
        return next((family for family in self.families if self._has_all(family, values)), None)

    def _has_all(self, family: Mapping[str, Value], values: Mapping[str, Any]) -> bool:
        domains = self.domains_of(family)
        return all(
            name in domains and (same_value(family[name], value) if name in family else domains[name].holds(value))
            for name, value in values.items()
        )

    def narrowed(self, family: Mapping[str, Value]) -> SearchSpace:
        """Returns the space of the trials of one of the `families`: what they have in common is no longer searched."""
        if not family:
            return self
        ours = {name: domain for name, domain in self.domains_of(family).items() if name not in family}
        starts = [
            start
            for start in self.start
            if all(same_value(start.get(name, value), value) for name, value in family.items())
        ]
        rest = [{name: value for name, value in start.items() if name not in family} for start in starts]
        baseline = self.baseline and {name: value for name, value in self.baseline.items() if name not in family}
        own = {name: value for name, value in family.items() if name not in OF_PHOTOGRAPHS}
        return self.model_copy(
            update={
                "data": self.data_config(dict(family)),
                "trial": {**self.trial, **own},
                "space": ours,
                "when": {},
                "start": tuple(rest),
                "baseline": baseline,
            }
        )

    def fixed(self) -> dict[str, Any]:
        """Returns the value that every setting has in trials that do not search it."""
        defaults = {name: field.default for name, field in TrialConfig.model_fields.items()}
        return defaults | {name: getattr(self.data, name) for name in OF_PHOTOGRAPHS} | self.trial

    def family_of_baseline(self) -> dict[str, Value]:
        """Returns the family that [baseline] is of.

        What it leaves out is as in [trial], or the default, where that can be, else the first choice.
        """
        said, fixed = self.baseline or {}, self.fixed()
        families = sorted(
            self.families, key=lambda family: -sum(same_value(fixed[name], family[name]) for name in family)
        )
        agreeing = [
            one for one in families if all(same_value(said.get(name, value), value) for name, value in one.items())
        ]
        held = [
            one for one in agreeing if self._has_all(one, {n: v for n, v in said.items() if n in self.domains_of(one)})
        ]
        return [*held, *agreeing, *families][0]

    def domains(self) -> dict[str, tuple[Domain, ...]]:
        """Returns every parameter that some trial has, with each of its ranges."""
        found: dict[str, tuple[Domain, ...]] = {name: (domain,) for name, domain in self.space.items()}
        for _, name, domain in own_ranges(self.when):
            found[name] = (*found.get(name, ()), domain)
        return found

    def trial_config(self, values: dict[str, Any] | None = None) -> TrialConfig:
        """Returns the settings of a trial with the searched parameters set to `values`.

        Without values, those that are searched have their defaults, which no trial need have together: the rules
        between them are not judged. Raises pydantic's ValidationError.
        """
        rules = FIELDS_ONLY if values is None else None
        return TrialConfig.model_validate(self.trial_values(values or {}), context=rules)

    def trial_values(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns all that a trial with the searched `values` sets, not checked yet."""
        own = {name: value for name, value in values.items() if name not in OF_PHOTOGRAPHS}
        of_search = {"epochs": self.search.epochs, "seed": self.search.seed, "metric": self.search.metric}
        return {**self.trial, **of_search, **own}

    def data_config(self, values: dict[str, Any]) -> DataConfig:
        """Returns which photographs a trial is trained on, and how they are prepared, with the searched `values`."""
        return self.data.model_copy(update={name: values[name] for name in OF_PHOTOGRAPHS if name in values})

    def fitted(self, setting: Mapping[str, Any]) -> dict[str, Value]:
        """Returns what `setting` says of what is searched, each value as the nearest that can be proposed.

        What compares with nothing there is left out. Nothing is returned where it is a setting of another network, or
        of another value of a choice that has ranges of its own.
        """
        deciding: dict[str, Value] = {}
        for name in self.when:
            if name in setting:
                if not self.space[name].compares(setting[name]):
                    return {}
                deciding[name] = self.space[name].nearest(setting[name])
        domains = self.domains_of(deciding)
        if "model" in domains and "model" in setting and not domains["model"].holds(setting["model"]):
            return {}
        return {
            name: nearest_in(name, domain, setting[name])
            for name, domain in domains.items()
            if name in setting and domain.compares(setting[name])
        }

    @property
    def goal(self) -> Goal:
        """What the search goes by. Raises ConfigError where it is an own metric that cannot be loaded."""
        return goal_named(self.search.metric)

    @property
    def fits(self) -> tuple[Fit, ...]:
        """How photographs that are not square are fitted: what is searched, or what is set."""
        searched = [value for domain in self.domains().get("fit", ()) for value in domain.ends]
        found = searched if "fit" in self.space else [*searched, self.data.fit]
        return tuple(dict.fromkeys(found))  # type: ignore[arg-type]

    @property
    def image_sizes(self) -> set[int]:
        """The sides, in px, of the images that trials are trained on."""
        trials = [self.narrowed(family).trial_config() for family in self.families]
        return {side for trial in trials for side in (trial.image_size, *trial.progressive_sizes.values())}


def nearest_in(name: str, domain: Domain, value: object) -> Value:
    """Returns what can be proposed for the parameter `name` nearest to `value`. An early stopping of 0 waits without a
    bound.
    """
    if name == "early_stopping" and value == 0 and not domain.holds(value):
        return domain.nearest(NO_BOUND)
    return domain.nearest(value)


def with_choices_called(name: str, called: Mapping[str, str], space: SearchSpace) -> SearchSpace:
    """Returns `space` with other words for choices of the parameter `name`, {as it was: as it is to be}."""
    if all(word == new for word, new in called.items()):
        return space

    def renamed(ranges: Mapping[str, Domain]) -> dict[str, Domain]:
        if name not in ranges:
            return dict(ranges)
        choices = tuple(called.get(value, value) if isinstance(value, str) else value for value in ranges[name].ends)
        return {**ranges, name: ranges[name].model_copy(update={"choice": choices})}

    def said(values: Mapping[str, Value]) -> dict[str, Value]:
        return {key: called.get(str(value), value) if key == name else value for key, value in values.items()}

    when = {
        choice: {
            called.get(value, value) if choice == name else value: renamed(ranges) for value, ranges in tables.items()
        }
        for choice, tables in space.when.items()
    }
    return space.model_copy(
        update={
            "space": renamed(space.space),
            "when": when,
            "start": tuple(said(start) for start in space.start),
            "baseline": said(space.baseline) if space.baseline is not None else None,
        }
    )
