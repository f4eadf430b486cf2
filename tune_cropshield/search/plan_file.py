"""The plan a search went by, kept in its folder: what each pair was predicted and measured to take."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

from tune_cropshield.memory.choose.pairs import Figures, Pair, Plan
from tune_cropshield.training.run_folder import write_json

PLAN = "plan.json"


def save_plan(folder: Path, plan: Plan) -> None:
    """Writes plan.json: all of the plan, and its pairs one by one.

    A pair stands with its figures (MiB, images/s; null where unknown).
    """
    own = {field.name: getattr(plan, field.name) for field in fields(plan) if field.name not in ("pairs", "figures")}
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
    write_json(folder / PLAN, {**own, "pairs": pairs})


def load_plan(folder: Path) -> Plan | None:
    """Returns the plan in `folder`, None where none was kept (older searches) or the file is damaged.

    It is for people to look at.
    """
    try:
        kept = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        pairs: dict[int, tuple[Pair, ...]] = {}
        figures = {}
        for line in kept.pop("pairs"):
            pair = Pair(line.pop("micro_batch"), line.pop("accumulation"))
            batch = line.pop("effective_batch")
            pairs[batch] = (*pairs.get(batch, ()), pair)
            figures[pair] = Figures(**line)
        return Plan(pairs=pairs, figures=figures, **{**kept, "notes": tuple(kept["notes"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
