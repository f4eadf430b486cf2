"""The plan a search went by, kept in its folder: what each pair was predicted and measured to take."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from tune_cropshield.memory.choose.pairs import Figures, Pair, Plan
from tune_cropshield.training.run_folder import write_json

PLAN = "plan.json"


def save_plan(folder: Path, plan: Plan) -> None:
    """Writes plan.json: all of the plan, and its pairs one by one.

    A pair stands with its figures (MiB, images/s; null where unknown). Where trials have several networks or image
    sizes, the plan of each stands in `families`, with the values that tell it apart.
    """
    families = [{"values": dict(values), "plan": _tables(own)} for values, own in plan.families]
    write_json(folder / PLAN, _tables(plan) | ({"families": families} if families else {}))


def _tables(plan: Plan) -> dict[str, Any]:
    left_out = ("pairs", "figures", "families")
    own = {field.name: getattr(plan, field.name) for field in fields(plan) if field.name not in left_out}
    pairs = [
        {
            "effective_batch": batch,
            "micro_batch": pair.micro_batch,
            "accumulation": pair.accumulation,
            **asdict(plan.figures.get(pair, Figures())),
        }
        for batch in sorted(plan.pairs)
        for pair in plan.pairs[batch]
    ]
    return {**own, "pairs": pairs}


def load_plan(folder: Path) -> Plan | None:
    """Returns the plan in `folder`, None where none was kept (older searches) or the file is damaged.

    It is for people to look at.
    """
    try:
        kept = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        families = tuple((family["values"], _plan(family["plan"])) for family in kept.pop("families", []))
        return replace(_plan(kept), families=families)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _plan(kept: dict[str, Any]) -> Plan:
    pairs: dict[int, tuple[Pair, ...]] = {}
    figures = {}
    for line in kept.pop("pairs"):
        pair = Pair(line.pop("micro_batch"), line.pop("accumulation"))
        batch = line.pop("effective_batch")
        pairs[batch] = (*pairs.get(batch, ()), pair)
        figures[pair] = Figures(**line)
    return Plan(pairs=pairs, figures=figures, **{**kept, "notes": tuple(kept["notes"])})
