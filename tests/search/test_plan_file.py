"""What a search keeps beside its results: its plan and its starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tune_cropshield.memory.choose.pairs import Figures, Pair, Plan, plan_for_cpu
from tune_cropshield.search.launches import read_starts
from tune_cropshield.search.plan_file import load_plan, save_plan

MEASURED = Plan(
    pairs={16: (Pair(16, 1),), 32: (Pair(32, 1), Pair(16, 2))},
    source="probe",
    share_mib=7000.0,
    context_mib=512.5,
    fixed_mib=90.0,
    per_image_mib=50.5,
    figures={Pair(16, 1): Figures(1.0, 2.0, 3.0, 4.0, 5.0), Pair(32, 1): Figures(None, 9.0), Pair(16, 2): Figures()},
    notes=("no pair that fits makes an effective batch of 64",),
)


@pytest.mark.parametrize("plan", [MEASURED, plan_for_cpu((16, 128))], ids=["measured", "CPU"])
def test_a_plan_is_read_back_as_it_was(tmp_path: Path, plan: Plan) -> None:
    save_plan(tmp_path, plan)
    read = load_plan(tmp_path)

    assert read is not None
    assert (read.pairs, read.source, read.share_mib, read.context_mib, read.notes) == (
        plan.pairs,
        plan.source,
        plan.share_mib,
        plan.context_mib,
        plan.notes,
    )
    assert (read.fixed_mib, read.per_image_mib) == (plan.fixed_mib, plan.per_image_mib)
    assert all(
        read.figures[pair] == plan.figures.get(pair, Figures()) for pairs in plan.pairs.values() for pair in pairs
    )


def test_programs_read_a_pair_with_its_figures(tmp_path: Path) -> None:
    save_plan(tmp_path, MEASURED)

    assert json.loads((tmp_path / "plan.json").read_text())["pairs"][0] == {
        "effective_batch": 16,
        "micro_batch": 16,
        "accumulation": 1,
        "predicted_allocated_mib": 1.0,
        "predicted_reserved_mib": 2.0,
        "measured_allocated_mib": 3.0,
        "measured_reserved_mib": 4.0,
        "images_per_s": 5.0,
    }


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pairs": [{}]}', '{"pairs": 3}', '{"pairs": [], "notes": [], "unknown": 1}']
)
def test_a_damaged_plan_is_no_plan(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)

    assert load_plan(tmp_path) is None


def test_a_search_without_a_plan_has_none(tmp_path: Path) -> None:
    assert load_plan(tmp_path) is None


def test_damaged_lines_of_starts_are_passed_over(tmp_path: Path) -> None:
    assert read_starts(tmp_path) == []

    (tmp_path / "starts.jsonl").write_text('{"started": "a"}\n{"sta\n[1]\n{"started": "b"}\n')

    assert [start["started"] for start in read_starts(tmp_path)] == ["a", "b"]
