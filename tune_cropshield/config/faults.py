"""Everything that is wrong with a set of settings, at once, in sentences.

A sentence names the place, the rule and the value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeVar

from pydantic import AliasPath, BaseModel, ConfigDict, ValidationError, ValidationInfo, WrapValidator, model_validator
from pydantic_core import ErrorDetails

from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.errors import ConfigError

Location = tuple[int | str, ...]
FIELDS_ONLY = {"rules": False}  # a validation context: check each field, leave the rules between them alone
LONGEST_VALUE = 60  # characters of a wrong value that are repeated

# pydantic's kinds of fault -> the rule as a sentence; the names in braces are pydantic's own.
SENTENCES = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "finite_number": "must be finite",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
}


@dataclass(frozen=True)
class Rule:
    """What must hold between several settings of a table. fault: (settings) -> a sentence, or None where it holds."""

    fields: frozenset[str]
    fault: Callable[[Any], str | None]


class Settings(BaseModel):
    """Base of every settings table.

    Unknown keys are errors, values never change, numbers are finite, and "1e-4" is not a number. The sentence below a
    field says what it is for; docs/settings.md shows it.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    rules: ClassVar[tuple[Rule, ...]] = ()

    @model_validator(mode="after")
    def _rules_hold(self, info: ValidationInfo) -> Self:
        faults = (
            []
            if info.context == FIELDS_ONLY
            else [fault for rule in self.rules if (fault := rule.fault(self)) is not None]
        )
        if faults:
            raise ConfigError(faults)
        return self


SomeSettings = TypeVar("SomeSettings", bound=Settings)


def described_as(sentence: str) -> WrapValidator:
    """Returns an annotation that answers any wrong value with "must be `sentence`".

    The branches of a union would otherwise be told one by one.
    """

    def check(value: object, validate: Callable[[object], object]) -> object:
        try:
            return validate(value)
        except ValidationError:
            raise ValueError(f"must be {sentence}, but got {shown(value)}") from None

    return WrapValidator(check)


@dataclass(frozen=True)
class Origin:
    """Where settings came from: a table of a file, with some of its values given on the command line.

    flags: {place of the value, like ("search", "trials"): its flag, like "--trials"}.
    """

    file: str
    flags: Mapping[tuple[str, str], str] = field(default_factory=dict)
    table: tuple[str, ...] = ()

    def of(self, location: Location) -> str:
        """Returns the words for the place of one value, or of a whole table."""
        keys = [*self.table, *(str(part) for part in location)]
        if len(keys) >= 2 and (keys[0], keys[1]) in self.flags:
            return self.flags[keys[0], keys[1]]
        return (
            f"{self.file}: {'.'.join(key if _is_plain(key) else json.dumps(key) for key in keys)}"
            if keys
            else self.file
        )

    def of_rule(self, location: Location, rule: Rule) -> str:
        """Returns the words for the place where `rule` does not hold; a flag that had a part in it is named."""
        keys = (*self.table, *(str(part) for part in location))
        flags = [flag for place, flag in self.flags.items() if place[:1] == keys[:1] and place[1] in rule.fields]
        return self.of(location) + (f" with {' '.join(flags)}" if flags else "")

    def inside(self, *table: str) -> Origin:
        """Returns the origin of the values in a table of this one."""
        return Origin(self.file, self.flags, (*self.table, *table))


def overridden(
    tables: dict[str, Any], overrides: Mapping[str, Mapping[str, Any]], file: str
) -> tuple[dict[str, Any], Origin]:
    """Returns the tables of `file` with `overrides` over them, and what came from where.

    overrides: {"search": {"trials": 8}}; they came as flags.
    """
    flags: dict[tuple[str, str], str] = {}
    for table, values in overrides.items():
        inner = tables.get(table, {})
        if isinstance(inner, dict):  # else it is at fault itself
            tables = {**tables, table: {**inner, **values}}
            flags |= _flags(table, values)
    return tables, Origin(file, flags)


def command_line(table: str, values: Mapping[str, Any]) -> Origin:
    """Returns the origin of the values of one table that all came as flags."""
    return Origin("command line", _flags(table, values), (table,))


def _flags(table: str, values: Mapping[str, Any]) -> dict[tuple[str, str], str]:
    return {
        (table, name): "--data" if (table, name) == ("data", "dir") else f"--{name.replace('_', '-')}"
        for name in values
    }


def validated(settings: type[SomeSettings], values: dict[str, Any], origin: Origin) -> SomeSettings:
    """Returns `values` as `settings`; raises ConfigError with one line per fault."""
    model, faults = checked(settings, values, origin)
    if faults:
        raise ConfigError(faults)
    return model


def checked(settings: type[SomeSettings], values: dict[str, Any], origin: Origin) -> tuple[SomeSettings, list[str]]:
    """Returns what is right of `values` as `settings`, and a sentence for everything that is wrong with them.

    A rule is judged only where every value it speaks of is right: otherwise a default, which nobody gave, would be
    found at fault.
    """
    model, faults, wrong = checked_fields(settings, values, origin)
    return model, list(dict.fromkeys(faults + broken_rules(model, wrong, origin)))


def checked_fields(
    settings: type[SomeSettings], values: dict[str, Any], origin: Origin
) -> tuple[SomeSettings, list[str], set[Location]]:
    """Returns what is right of `values`, a sentence for each value that is wrong in itself, and the places of those.

    Rules are not judged.
    """
    try:
        return settings.model_validate(values, context=FIELDS_ONLY), [], set()
    except ValidationError as error:
        faults, wrong = [], set()
        for details in error.errors():
            faults.append(_sentence(details, settings, origin))
            values, place = _without(values, details["loc"])
            wrong.add(place)
        return settings.model_validate(values, context=FIELDS_ONLY), list(dict.fromkeys(faults)), wrong


def broken_rules(model: Settings, wrong: set[Location], origin: Origin, location: Location = ()) -> list[str]:
    """Returns a sentence for each rule that does not hold in `model` or in a table inside it.

    Rules about a `wrong` value are left out.
    """
    faults = []
    for rule in model.rules:
        if not any((*location, name) in wrong for name in rule.fields) and (fault := rule.fault(model)) is not None:
            faults.append(f"{origin.of_rule(location, rule)}: {fault}")
    for name, value in model:
        inside = {(name,): value} if not isinstance(value, dict) else {(name, key): item for key, item in value.items()}
        for place, table in inside.items():
            if isinstance(table, Settings):
                faults += broken_rules(table, wrong, origin, (*location, *place))
    return faults


def _without(values: dict[str, Any], location: Location) -> tuple[dict[str, Any], Location]:
    """Returns a copy of `values` without the innermost key on the way to `location`, and the place of that key."""
    key = str(location[0])
    inner = values.get(key)
    if len(location) > 1 and isinstance(inner, dict) and str(location[1]) in inner:
        smaller, place = _without(inner, location[1:])
        return {**values, key: smaller}, (key, *place)
    return {name: value for name, value in values.items() if name != key}, (key,)


def _sentence(details: ErrorDetails, settings: type[BaseModel], origin: Origin) -> str:
    kind, location, context = details["type"], details["loc"], details.get("ctx", {})
    if location and location[-1] == "[key]":  # a wrong key of a table: pydantic repeats it in the location
        location = location[:-2]
    if kind == "extra_forbidden":
        return f"{origin.of(location)}: unknown key; {known_keys(settings, location)}"
    if kind == "value_error":
        return f"{origin.of(location)}: {context['error']}"
    rule = SENTENCES[kind].format(**context) if kind in SENTENCES else details["msg"][:1].lower() + details["msg"][1:]
    told, hint = f"{origin.of(location)}: {rule}, but got {shown(details['input'])}", ""
    if kind == "literal_error":
        hint = did_you_mean(str(details["input"]), re.findall(r"'([^']*)'", context["expected"])).rstrip()
    return f"{told}; {hint}" if hint else told


def known_keys(settings: type[BaseModel], location: Location) -> str:
    """Returns the keys that could have stood where an unknown one was found, the closest first."""
    known: type[BaseModel] = settings
    for part in location[:-1]:
        field = known.model_fields.get(str(part))
        if field is None:
            break
        inner = [
            kind for kind in (field.annotation, *getattr(field.annotation, "__args__", ())) if isinstance(kind, type)
        ]
        known = next((kind for kind in inner if issubclass(kind, BaseModel)), known)
    own = {
        name: field for name, field in known.model_fields.items() if not isinstance(field.validation_alias, AliasPath)
    }
    names = [field.alias or name for name, field in own.items()]  # the others stand inside a table
    return unknown_name(str(location[-1]), names)


def unknown_name(name: str, known: list[str]) -> str:
    """Returns the end of a sentence about an unknown name: the closest known one, then all of them."""
    return f"{did_you_mean(name, known)}known here: {', '.join(known)}"


def shown(value: object) -> str:
    """Returns a wrong value as the user wrote it, cut where it is long."""
    try:
        text = json.dumps(value, ensure_ascii=False)  # nearer to TOML than Python's repr
    except (TypeError, ValueError):
        text = str(value)  # a date; an int of thousands of digits cannot get here
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _is_plain(key: str) -> bool:
    return bool(key) and all(letter.isalnum() or letter in "_-" for letter in key)
