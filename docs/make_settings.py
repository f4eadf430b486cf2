"""Writes settings.md beside this file from the settings' own definitions: python docs/make_settings.py."""

from __future__ import annotations

import json
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from tune_cropshield.config.domain import KINDS, Domain
from tune_cropshield.config.faults import Settings
from tune_cropshield.config.registry import MODELS, REGISTRIES
from tune_cropshield.config.searchable import FIXED, OF_PHOTOGRAPHS, OWNED_BY_SEARCH
from tune_cropshield.config.settings import DataConfig, TrialConfig
from tune_cropshield.config.space import SearchSettings, SearchSpace

PAGE = Path(__file__).with_name("settings.md")
PLAIN = {bool: "`true` or `false`", str: "text", int: "whole number", float: "number"}
BOUNDS = (("gt", "above"), ("ge", "from"), ("lt", "and below"), ("le", "to"))  # annotated_types' names -> words

INTRODUCTION = """\
# Every setting

A settings file is TOML. A search space (`search --space FILE.toml`) has the tables `[data]`, `[trial]`, `[space]` and
`[search]`, and may have `[baseline]` and any number of `[[start]]`. What it leaves out keeps the default. A single
training (`train --config FILE.toml`) has `[data]` and `[trial]`. A flag such as `--epochs 10` takes precedence over the
file.
"left out" as a default means that the key is not there.

This page is made from the code by `python docs/make_settings.py`.
"""


def words_for(kind: Any, limits: tuple[Any, ...] = ()) -> str:
    """Returns the values that a type allows, in words. limits: bounds that a field sets beside its type."""
    origin = get_origin(kind)
    if origin is Annotated:
        inner, *extra = get_args(kind)
        flat = [limit for item in extra for limit in (item.metadata if isinstance(item, FieldInfo) else [item])]
        return words_for(inner, (*limits, *flat))
    if origin in (Union, UnionType):
        return " or ".join(words_for(part, limits) for part in get_args(kind) if part is not NoneType)
    if origin is Literal:
        return ", ".join(f"`{json.dumps(value)}`" for value in get_args(kind))
    if origin is dict:
        key, value = get_args(kind)
        return f"table: {words_for(key)} = {words_for(value)}"
    if origin is list:
        return f"list of {words_for(get_args(kind)[0])}"
    if origin is tuple:
        parts = get_args(kind)
        if Ellipsis in parts:
            return "list of text, numbers, `true`, `false`"
        return f"list of {len(parts)} {words_for(parts[0])}s"
    bounds = [(word, getattr(limit, name, None)) for name, word in BOUNDS for limit in limits]
    return PLAIN[kind] + "".join(f" {word} {bound}" for word, bound in bounds if bound is not None)


def values(key: str, field: FieldInfo) -> str:
    """Returns the values that a setting may have, in words."""
    if key in REGISTRIES:
        if REGISTRIES[key] is MODELS:
            return "a name, or `file.py:NAME`"
        return ", ".join(f'`"{name}"`' for name in REGISTRIES[key]) + ", or `file.py:NAME`"
    words = words_for(field.annotation, tuple(field.metadata))
    if not field.examples:
        return words
    return f"{words}, like " + ", ".join(f"`{json.dumps(example)}`" for example in field.examples)


def purpose(field: FieldInfo) -> str:
    """Returns what a setting is for, in one line."""
    return " ".join((field.description or "").split())


def table(settings: type[Settings]) -> list[str]:
    """Returns a table of Markdown with a row for each setting."""
    rows = ["| key | values | default | what for |", "|---|---|---|---|"]
    for name, field in settings.model_fields.items():
        key = field.alias or name
        default = "left out" if field.default is None else f"`{json.dumps(field.default)}`"
        rows.append(f"| `{key}` | {values(key, field)} | {default} | {purpose(field)} |")
    return rows


def searched() -> list[str]:
    """Returns what stands in [space]: which settings, and a table of the kinds of ranges."""
    fixed, owned, of_data = (
        ", ".join(f"`{name}`" for name in names) for names in (FIXED, OWNED_BY_SEARCH, OF_PHOTOGRAPHS)
    )
    return [
        f"Every key of `[trial]` and, of `[data]`, {of_data} can be searched. Exceptions are",
        f"{fixed},",
        "which are the same in all trials of a search, and",
        f"{owned},",
        "which the search chooses itself.",
        *("", "| kind | value | what for |", "|---|---|---|"),
        *(
            f"| `{KINDS[name]}` | {words_for(field.annotation)} | {purpose(field)} |"
            for name, field in Domain.model_fields.items()
        ),
    ]


def page() -> str:
    """Returns the whole page."""
    inside = {
        "data": table(DataConfig),
        "trial": table(TrialConfig),
        "space": searched(),
        "search": table(SearchSettings),
    }
    lines = [INTRODUCTION.rstrip()]
    for name, field in SearchSpace.model_fields.items():
        title = f"[[{name}]]" if name == "start" else f"[{name}]"
        lines += ["", f"## `{title}`", "", purpose(field)]
        lines += ["", *inside[name]] if name in inside else []
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
