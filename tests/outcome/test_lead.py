"""What the winner's lead over the second-best trial is worth, from the predictions that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from invented_search import InventedTrial, invent_search
from test_report import read, settings
from test_report_on_certainty import predicted

from tune_cropshield.outcome.lead import Lead
from tune_cropshield.outcome.report import write_report
from tune_cropshield.outcome.shares import OnSamePhotographs
from tune_cropshield.outcome.summary import summary_facts, summary_lines
from tune_cropshield.search.journal import read_study
from tune_cropshield.training.predictions import PREDICTIONS


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (
            OnSamePhotographs(286, 18, 12),
            "its lead over trial 5 (2.1 points, 18 photographs against 12) could be chance (p = 0.36)",
        ),
        (
            OnSamePhotographs(100, 10, 1),
            "its lead over trial 5 (9.0 points, 10 photographs against 1) is larger than chance would give (p = 0.012)",
        ),
        (
            OnSamePhotographs(50, 1, 0),
            "its lead over trial 5 (2.0 points, 1 photograph against 0) could be chance (p = 1)",
        ),
        (
            OnSamePhotographs(50, 3, 3),
            "trial 5 is as good (3 photographs against 3 that only one of the two gets right)",
        ),
    ],
)
def test_a_lead_is_held_against_chance(found: OnSamePhotographs, told: str) -> None:
    assert Lead(5, found).sentence == told


def search_of_three(folder: Path, leaves: Path, cache: Path) -> None:
    """Trial 2 wins with 11 of 12, trial 1 has 10, trial 0 has 6."""
    trials = [
        InventedTrial(settings(), [0.5], predictions=predicted("rrrrrrwwwwww")),
        InventedTrial(settings(lr=3e-4), [10 / 12], "pruned", predictions=predicted("rrrrrrrrrrww")),
        InventedTrial(settings(lr=1e-3), [11 / 12], predictions=predicted("wrrrrrrrrrrr")),
    ]
    invent_search(folder, leaves, cache, trials)


def test_the_terminal_the_report_and_programs_are_told_of_the_runner_up(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    folder = tmp_path / "s"
    search_of_three(folder, drawn_leaves, shared_cache)
    told = "its lead over trial 1 (8.3 points, 2 photographs against 1) could be chance (p = 1)"

    assert told in summary_lines(read_study(folder), folder, folder)
    assert told[1:] in read(write_report(folder, shared_cache))
    assert summary_facts(read_study(folder), folder)["runner_up"] == {
        "trial": 1,
        "lead": pytest.approx(1 / 12),
        "photographs": 12,
        "only_best": 2,
        "only_runner_up": 1,
        "p_value": 1.0,
    }


def test_without_the_predictions_of_both_nothing_is_said(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    folder = tmp_path / "s"
    search_of_three(folder, drawn_leaves, shared_cache)
    (folder / "t001" / PREDICTIONS).unlink()

    assert summary_facts(read_study(folder), folder)["runner_up"] is None
    assert not [line for line in summary_lines(read_study(folder), folder, folder) if "lead" in line]
