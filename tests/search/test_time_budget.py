"""How a time budget is shared between trials, the final training and the end, over all starts of a search."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tune_cropshield.config.space import SearchSettings
from tune_cropshield.outcome.ledger import Start, ledger_of, spent_s
from tune_cropshield.search.early_end import EarlyEnd
from tune_cropshield.search.time_budget import TimeBudget
from tune_cropshield.training.clock import PARTS


def test_trials_have_a_third_and_the_final_training_the_rest() -> None:
    budget = TimeBudget(total_s=600.0, began=1000.0)

    assert budget.ends == 1600.0
    assert budget.trials_end == 1200.0
    assert budget.ending_s == 12.0


def test_without_a_final_training_trials_have_all_but_the_time_for_the_report() -> None:
    assert TimeBudget(total_s=600.0, began=1000.0, finish=False).trials_end == 1588.0
    assert TimeBudget(total_s=50.0, began=1000.0, finish=False).trials_end == 1049.0
    assert TimeBudget(total_s=86400.0, began=1000.0, finish=False).trials_end == 87388.0


def test_the_time_of_earlier_starts_counts() -> None:
    killed_among_trials = TimeBudget(total_s=600.0, began=1000.0, spent_s=150.0, searching_s=150.0)
    assert (killed_among_trials.trials_end, killed_among_trials.ends) == (1050.0, 1450.0)

    killed_in_its_final_training = TimeBudget(total_s=600.0, began=1000.0, spent_s=400.0, searching_s=205.0)
    assert (killed_in_its_final_training.trials_end, killed_in_its_final_training.ends) == (995.0, 1200.0)

    extended = TimeBudget(total_s=1200.0, began=1000.0, spent_s=600.0, searching_s=200.0)
    assert (extended.trials_end, extended.ends) == (1200.0, 1600.0)


def test_a_search_is_worth_it_where_three_whole_trials_fit_beside_the_start_up() -> None:
    budget = TimeBudget(total_s=600.0, began=0.0)  # 200 s for trials, 10 of them for the start-up

    assert budget.is_worth_searching(full_trial_s=60.0, trials_at_once=1, now=0.0)
    assert not budget.is_worth_searching(full_trial_s=70.0, trials_at_once=1, now=0.0)
    assert budget.is_worth_searching(full_trial_s=70.0, trials_at_once=2, now=0.0)
    assert not budget.is_worth_searching(full_trial_s=70.0, trials_at_once=2, now=100.0)  # spent on decoding


@pytest.mark.parametrize(
    ("settings", "finishes"),
    [
        ({}, False),
        ({"time_budget": "10m"}, True),
        ({"time_budget": "10m", "finish": False}, False),
        ({"finish": True}, True),
    ],
)
def test_a_winner_is_trained_on_where_there_is_a_time_budget_or_it_is_asked_for(
    settings: dict[str, object], finishes: bool
) -> None:
    assert SearchSettings.model_validate(settings).finishes is finishes


def test_the_end_of_the_time_ends_a_search() -> None:
    end = EarlyEnd()
    end.end_at(time.monotonic() + 100.0)
    assert not end.is_due()
    end.end_at(time.monotonic() - 1.0)
    assert end.is_due()
    assert end.reason == "the time budget is used up"


def line(ended: float, seconds: float) -> dict[str, object]:
    return {"what": "epoch", "worker": 1, "ended": ended, **dict.fromkeys(PARTS, 0.0), "step": seconds}


def write_lines(folder: Path, lines: list[dict[str, object]]) -> None:
    folder.mkdir()
    (folder / "times.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_what_all_starts_have_taken_is_read_from_the_ledger_and_of_a_killed_one_from_its_last_epoch(
    tmp_path: Path,
) -> None:
    assert spent_s(tmp_path) == (0.0, 0.0)

    began = 1_700_000_000.0
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(began + 500))
    starts = [{"started": "2023-11-14T22:13:20+0000", "trials_at_once": 2}, {"started": stamp, "trials_at_once": 2}]
    (tmp_path / "starts.jsonl").write_text("".join(json.dumps(start) + "\n" for start in starts))
    (tmp_path / "ledger.json").write_text(json.dumps({"starts": [{"slots": 2, "began": began, "ended": began + 100}]}))
    write_lines(tmp_path / "t000", [line(began + 30, 5), line(began + 90, 5)])
    write_lines(tmp_path / "t001", [line(began + 540, 5)])
    assert spent_s(tmp_path) == (140.0, 130.0)

    write_lines(tmp_path / "final", [line(began + 700, 5)])
    (tmp_path / "final" / "origin.json").write_text('{"trial": 1}')
    assert spent_s(tmp_path) == (300.0, 130.0)


def test_the_final_training_takes_the_time_of_all_slots() -> None:
    lines = [line(100.0, 40.0), {**line(160.0, 50.0), "on_all_cores": True}]

    ledger = ledger_of(lines, [Start(slots=2, began=50.0, ended=170.0)])

    assert ledger.parts["step"] == 140.0
    assert ledger.slots_s == 240.0
    assert ledger.idle_s == 100.0
