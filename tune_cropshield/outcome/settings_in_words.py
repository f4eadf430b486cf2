"""What a search.toml says, setting by setting, in words: also one that another version wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tune_cropshield.config.domain import Domain
from tune_cropshield.config.searchable import OWNED_BY_SEARCH
from tune_cropshield.config.settings import DataConfig, TrialConfig
from tune_cropshield.config.space import SearchSettings
from tune_cropshield.outcome import words


def searched(tables: Mapping[str, Any]) -> dict[str, str]:
    """Returns {name: its range} of what is searched; a range of a choice's own under "when.optimizer.sgd.lr"."""
    space = _table(tables, "space")
    found = {name: _range(domain) for name, domain in space.items() if name != "when"}
    when = _table(space, "when")
    for choice in when:
        for value in _table(when, choice):
            ranges = _table(when[choice], value)
            found |= {f"when.{choice}.{value}.{name}": _range(domain) for name, domain in ranges.items()}
    return found


def fine_tuning(trial: Mapping[str, Any]) -> str:
    """Returns how the settings in a [trial] table train the head and the rest of a network apart; "" where alike.

    What is searched is not in that table, and not told.
    """
    frozen, share, decay = (trial.get(name) for name in ("unfreeze_epochs", "backbone_lr_factor", "layer_decay"))
    told = []
    if trial.get("freeze_backbone"):
        told.append("only the head (the last layer) trains")
    if isinstance(frozen, int) and frozen > 0:
        told.append(f"the head (the last layer) trains alone for {words.counted(frozen, 'epoch')}")
    if share not in (None, 1):
        told.append(f"the rest of the network learns at {words.setting(share)} times the learning rate")
    if decay not in (None, 1):
        told.append(f"each block learns at {words.setting(decay)} times the rate of the block after it")
    return "; ".join(told)


def in_words(tables: Mapping[str, Any]) -> dict[str, str]:
    """Returns {name: value or range} of every setting, what is left out at its default.

    Those of a trial have their own name; the others have their table's before it, as in "search.trials". "start" and
    "baseline" are the settings that are tried first.
    """
    trial = _whole(TrialConfig, _table(tables, "trial"))
    found = {name: _value(value) for name, value in trial.items() if name not in OWNED_BY_SEARCH} | searched(tables)
    for name, model in (("data", DataConfig), ("search", SearchSettings)):
        found |= {f"{name}.{key}": _value(value) for key, value in _whole(model, _table(tables, name)).items()}
    starts = tables.get("start", [])
    starts = starts if isinstance(starts, list) else []
    return {
        **found,
        "start": "; ".join(map(_spelled, starts)) or "–",
        "baseline": _spelled(tables.get("baseline")) or "–",
    }


def _spelled(setting: Any) -> str:
    """Returns a table of parameters and values in words; "" where it is none."""
    parameters = setting.items() if isinstance(setting, dict) else []
    return ", ".join(f"{name} {words.setting(value)}" for name, value in parameters)


def _whole(model: type[BaseModel], table: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {name: known.get_default(call_default_factory=True) for name, known in model.model_fields.items()}
    return {**defaults, **table}


def _table(tables: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = tables.get(name, {})
    return table if isinstance(table, dict) else {}


def _range(domain: Any) -> str:
    try:
        return Domain.model_validate(domain).describe()
    except (ValidationError, ValueError):
        return str(domain)


def _value(value: Any) -> str:
    return words.setting(value) if value not in ("", {}, [], ()) else "–"
