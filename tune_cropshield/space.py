"""Search-space files: what is fixed, what is searched, and how long.

A file is data only (TOML). It becomes typed domains, checked at both ends of every range, and then a dict of Optuna distributions, which survives
pickling where functions do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import optuna
from pydantic import Field, ValidationError, field_validator, model_validator

from tune_cropshield.config import DataConfig, Settings, TrialConfig, faults_of, read_toml
from tune_cropshield.errors import ConfigError
from tune_cropshield.units import parse_duration, parse_memory

Value = str | float | int | bool

# Settings that cannot be searched: the memory plan is made for one model, size and precision, and the rest is the search's own business.
FIXED = ("model", "image_size", "progressive_sizes", "precision", "channels_last", "freeze_backbone", "pretrained")
OWNED_BY_SEARCH = {
    "epochs": "[search] epochs",
    "seed": "[search] seed",
    "threads": "the search",
    "micro_batch": "the plan",
    "accumulation": "the plan",
}


class Domain(Settings):
    """The values a parameter may take: exactly one of a logarithmic, a uniform or an integer range, or a list of choices."""

    log: tuple[float, float] | None = None
    uniform: tuple[float, float] | None = None
    integer: tuple[int, int] | None = Field(None, alias="int")
    choice: tuple[Value, ...] | None = None

    @field_validator("log", "uniform", "integer", "choice", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_kind_and_in_order(self) -> Self:
        given = [name for name in ("log", "uniform", "integer", "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of log, uniform, int or choice, but got {' and '.join(given) or 'none'}")
        if self.choice is not None:
            if not self.choice or len(set(self.choice)) != len(self.choice):
                raise ValueError(f"choices must be there and differ, but got {list(self.choice)}")
            return self
        low, high = self.range
        if not low < high:
            raise ValueError(f"`low < high` must hold, but got {low=}, {high=}")
        if self.log is not None and low <= 0:
            raise ValueError(f"a log range must start above 0, but got {low=}")
        return self

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
            return value in self.choice
        low, high = self.range
        return isinstance(value, (float, int)) and not isinstance(value, bool) and low <= value <= high

    def nearest(self, value: Value) -> Value:
        """Returns `value`, or the end or numeric choice closest to it; the first choice where nothing compares."""
        if self.holds(value):
            return value
        numbers = [end for end in self.ends if isinstance(end, (float, int)) and not isinstance(end, bool)]
        if not numbers or isinstance(value, str):
            return self.ends[0]
        return min(numbers, key=lambda end: abs(end - value))

    def distribution(self) -> optuna.distributions.BaseDistribution:
        """Returns the domain as Optuna knows it."""
        if self.choice is not None:
            return optuna.distributions.CategoricalDistribution(self.choice)
        if self.integer is not None:
            return optuna.distributions.IntDistribution(*self.integer)
        return optuna.distributions.FloatDistribution(*self.range, log=self.log is not None)

    def describe(self) -> str:
        """Returns the domain in a few words, for people."""
        if self.choice is not None:
            return "one of " + ", ".join(str(value) for value in self.choice)
        low, high = self.range
        return f"{low:g} to {high:g}" + (", logarithmic" if self.log is not None else ", whole numbers" if self.integer is not None else "")


class SearchSettings(Settings):
    """How long is searched, how, and on what."""

    trials: int = Field(40, ge=1)
    epochs: int = Field(25, ge=1)  # of a trial that is never pruned
    grace_epochs: int = Field(2, ge=1)  # no trial is pruned before; at least the warm-up
    reduction_factor: float = Field(3, gt=1)  # 1 in so many trials goes on from a rung; eta of https://arxiv.org/abs/1810.05934
    sampler: Literal["tpe", "random", "gp"] = "tpe"
    pairs: Literal["fastest", "all"] = "fastest"  # one micro x accumulation per effective batch, or search every one that fits
    seed: int = Field(0, ge=0)
    time_budget: str = ""  # "2h", "90m", "45s"; "" has no end
    vram: str = "auto"  # "8GB", "4GiB", "rtx4060-laptop"; auto takes what is free now
    device: Literal["auto", "cpu", "cuda"] = "auto"
    trials_per_gpu: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"

    @field_validator("time_budget")
    @classmethod
    def _is_a_duration(cls, text: str) -> str:
        if text:
            parse_duration(text)
        return text

    @field_validator("vram")
    @classmethod
    def _is_an_amount(cls, text: str) -> str:
        if text != "auto":
            parse_memory(text)
        return text

    @model_validator(mode="after")
    def _grace_fits(self) -> Self:
        if self.grace_epochs > self.epochs:
            raise ValueError(f"`grace_epochs <= epochs` must hold, but got {self.grace_epochs} and {self.epochs}")
        return self

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which the worse trials stop: grace, then each `reduction_factor` times the last, below `epochs`."""
        rungs, rung = [], float(self.grace_epochs)
        while rung < self.epochs:
            rungs.append(int(-(-rung // 1)))
            rung *= self.reduction_factor
        return tuple(rungs)


class SearchSpace(Settings):
    """A whole search-space file."""

    data: DataConfig = DataConfig()
    trial: dict[str, Any] = {}
    space: dict[str, Domain] = {}
    search: SearchSettings = SearchSettings()
    start: tuple[dict[str, Value], ...] = ()

    @field_validator("start", mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    def trial_config(self, values: dict[str, Any] | None = None) -> TrialConfig:
        """Returns the settings of a trial with the searched parameters set to `values`. Raises pydantic's ValidationError."""
        own = {"epochs": self.search.epochs, "seed": self.search.seed}
        return TrialConfig.model_validate({**self.trial, **own, **(values or {})})


def load_space(path: Path, overrides: dict[str, dict[str, Any]] | None = None) -> SearchSpace:
    """Returns the search space in `path`, with `overrides` ({"search": {"trials": 8}}) over it.

    Raises ConfigError with every fault at once: of form, of each range's ends, of each starting point.
    """
    tables = read_toml(path)
    for table, values in (overrides or {}).items():
        tables[table] = {**tables.get(table, {}), **values}
    place = str(path)
    try:
        space = SearchSpace.model_validate(tables)
    except ValidationError as error:
        faults = faults_of(error, SearchSpace, place) + _faults_of_names(tables, place)
        if isinstance(tables.get("trial"), dict):
            faults += _faults_of_trial(SearchSpace(trial=_of_a_trial(tables["trial"])), {}, f"{place}: trial")
        raise ConfigError(list(dict.fromkeys(faults))) from None
    faults = _faults_of_names(tables, place) + _faults_of_values(space, place)
    if faults:
        raise ConfigError(list(dict.fromkeys(faults)))
    return space


def _of_a_trial(table: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that a file's [trial] may hold: what the search sets itself is reported by name, once."""
    return {name: value for name, value in table.items() if name not in OWNED_BY_SEARCH}


def _faults_of_names(tables: dict[str, Any], place: str) -> list[str]:
    """Returns what stands in the wrong table, or cannot be searched."""
    faults = []
    trial, space = (table if isinstance(table := tables.get(name, {}), dict) else {} for name in ("trial", "space"))
    for name in trial:
        if name in OWNED_BY_SEARCH:
            faults.append(f"{place}: trial.{name}: is set by {OWNED_BY_SEARCH[name]}")
    searchable = [name for name in TrialConfig.model_fields if name not in FIXED and name not in OWNED_BY_SEARCH]
    for name in space:
        if name not in searchable:
            why = "is the same for all trials of a search" if name in FIXED else "is no parameter that can be searched"
            faults.append(f"{place}: space.{name}: {why}; known here: {', '.join(searchable)}")
        elif name in trial:
            faults.append(f"{place}: {name}: stands in [trial] and in [space]")
    return faults


def _faults_of_values(space: SearchSpace, place: str) -> list[str]:
    """Returns what is wrong with a space whose form is right: settings, the ends of each range, starting points, grace."""
    fixed = space.model_copy(update={"trial": _of_a_trial(space.trial)})
    faults = _faults_of_trial(fixed, {}, f"{place}: trial")
    if not faults:
        for name, domain in space.space.items():
            for value in domain.ends if name in TrialConfig.model_fields else ():
                faults += _faults_of_trial(fixed, {name: value}, f"{place}: space")
    for number, start in enumerate(space.start):
        for name, value in start.items():
            if name not in space.space:
                faults.append(f"{place}: start {number}: {name}: is not searched; searched here: {', '.join(space.space)}")
            elif not space.space[name].holds(value):
                faults.append(f"{place}: start {number}: {name}: {value!r} is not in the space ({space.space[name].describe()})")
    if not faults:
        warmup = min(fixed.trial_config().warmup_epochs, space.search.epochs)
        if space.search.grace_epochs < warmup:
            faults.append(
                f"{place}: search.grace_epochs: `grace_epochs >= warmup_epochs` must hold (no trial is judged while it warms up), "
                f"but got {space.search.grace_epochs} and {warmup:g}"
            )
    return faults


def _faults_of_trial(space: SearchSpace, values: dict[str, Any], place: str) -> list[str]:
    try:
        space.trial_config(values)
    except ValidationError as error:
        return faults_of(error, TrialConfig, place)
    return []
