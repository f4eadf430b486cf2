"""docs/settings.md has every setting, as the code defines it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from tune_cropshield.config.domain import Domain
from tune_cropshield.config.faults import Settings
from tune_cropshield.config.settings import DataConfig, TrialConfig
from tune_cropshield.config.space import SearchSettings, SearchSpace

DOCS = Path(__file__).parents[1] / "docs"


def make_settings() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_settings", DOCS / "make_settings.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_code_says_now() -> None:
    written = (DOCS / "settings.md").read_text(encoding="utf-8")
    assert written == make_settings().page(), "run: python docs/make_settings.py"


@pytest.mark.parametrize("settings", [DataConfig, TrialConfig, SearchSettings, SearchSpace, Domain])
def test_every_setting_says_what_it_is_for(settings: type[Settings]) -> None:
    purposes = {name: field.description for name, field in settings.model_fields.items()}
    assert [name for name, purpose in purposes.items() if not purpose or not purpose.endswith(".")] == []


def test_a_row_gives_values_default_and_purpose() -> None:
    rows = (DOCS / "settings.md").read_text(encoding="utf-8").splitlines()
    assert (
        '| `max_norm` | number above 0 or `"none"` | `"none"` | '
        'Gradient clipping: the largest L2 norm that the whole gradient may have; "none" is off. |'
    ) in rows
    assert (
        "| `dropout` | number from 0 and below 1 | left out | "
        "Dropout before the last layer. Left out: as the network has it. |"
    ) in rows
    assert "| `int` | list of 2 whole numbers | Any whole number from the first to the second. |" in rows
    start = rows.index("## `[[start]]`")
    assert rows[start + 2].startswith("Settings that are tried first")
