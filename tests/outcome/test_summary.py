"""The first line of a search's result: how its trials ended."""

from __future__ import annotations

from pathlib import Path

from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

from tune_cropshield.outcome.summary import summary_lines
from tune_cropshield.search.journal import read_study


def test_trials_that_were_stopped_by_hand_are_told_from_those_that_the_rule_pruned(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    trials = [
        InventedTrial(REFERENCE_SETTING, [0.5, 0.6]),
        InventedTrial({**REFERENCE_SETTING, "lr": 1e-3}, [0.4], "pruned"),
        InventedTrial({**REFERENCE_SETTING, "lr": 2e-3}, [0.3], "pruned", "stopped by hand"),
        InventedTrial({**REFERENCE_SETTING, "lr": 3e-3}, [], "failed", "stopped by hand before its first epoch"),
    ]
    folder = tmp_path / "s"
    invent_search(folder, drawn_leaves, shared_cache, trials)

    assert summary_lines(read_study(folder), folder, folder)[0] == (
        "4 trials: 2 pruned (1 stopped by hand), 1 finished, 1 failed (1 stopped by hand); 4 epochs trained"
    )


def test_a_search_that_was_stopped_before_its_first_trial_names_no_network(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    folder = tmp_path / "s"
    invent_search(folder, drawn_leaves, shared_cache, [])

    assert summary_lines(read_study(folder), folder, folder) == ["no trial was started"]
    (folder / "best").mkdir()  # as after a final training of a starting point
    assert summary_lines(read_study(folder), folder, Path("s"))[1] == "configuration and weights: s/best"
