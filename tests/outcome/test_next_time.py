"""What a search says that the next one would try first."""

from __future__ import annotations

from pathlib import Path

from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

from tune_cropshield.outcome.summary import summary_facts, summary_lines
from tune_cropshield.search.journal import read_study

WINNER = {"lr": 1e-3, "max_norm": 1.0, "weight_decay": 0.01, "effective_batch": 16}


def test_a_search_ends_with_what_the_next_would_try_first(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    worse = [InventedTrial({**REFERENCE_SETTING, "lr": lr}, [0.1], "pruned") for lr in (1e-5, 2e-5, 3e-5, 4e-5, 5e-5)]
    far = {"lr": 3e-3, "max_norm": "none", "weight_decay": 1e-5, "effective_batch": 128}
    trials = [InventedTrial(REFERENCE_SETTING, [0.5]), *worse, InventedTrial(far, [0.7]), InventedTrial(WINNER, [0.8])]
    folder = tmp_path / "s"
    invent_search(folder, drawn_leaves, shared_cache, trials)

    assert summary_lines(read_study(folder), folder, folder)[-1] == (
        "the next search of this network tries first: lr 0.001, max_norm 1, weight_decay 0.01, effective_batch 16; "
        "then lr 0.003, max_norm none, weight_decay 1e-05, effective_batch 128"
    )
    assert summary_facts(read_study(folder), folder)["next"] == [WINNER, far]


def test_one_trial_has_nothing_to_tell_the_next(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> None:
    folder = tmp_path / "s"
    invent_search(folder, drawn_leaves, shared_cache, [InventedTrial(WINNER, [0.8])])

    assert summary_facts(read_study(folder), folder)["next"] == []
    assert not [line for line in summary_lines(read_study(folder), folder, folder) if "next search" in line]
