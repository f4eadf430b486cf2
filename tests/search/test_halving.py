"""Who is stopped at a rung, on stored curves: no Ray runtime, nothing is trained."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pytest

from tune_cropshield.search.endings import METRIC
from tune_cropshield.search.halving import Halving
from tune_cropshield.search.ray_runtime import ENVIRONMENT

EPOCHS = 9
Recorded = dict[int, dict[int, float]]  # trial -> {epoch: best so far}, as the journal holds them


@dataclass
class StoredTrial:
    """What a scheduler looks at in a trial."""

    trial_id: str
    config: dict[str, Any] = field(default_factory=dict)


def curves(seed: int) -> list[list[float]]:
    """The best-so-far of 10 trials."""
    chance = random.Random(seed)
    return [list(accumulate((chance.random() for _ in range(EPOCHS)), max)) for _ in range(10)]


def new_halving() -> Halving:
    assert ENVIRONMENT["RAY_AUTH_MODE"] == "token"
    return Halving(EPOCHS, grace_epochs=1, reduction_factor=2)


def search(
    halving: Halving,
    known: list[list[float]],
    recorded: Recorded,
    first: tuple[int, int],
    kill: tuple[int, int] | None = None,
) -> list[int]:
    """Runs trials one after another, from (trial, epoch) on, and returns the epochs that each trial got.

    kill: ends everything after that trial's epoch was trained and before it was judged.
    """
    ended = []
    for number in range(first[0], len(known)):
        trial = StoredTrial(f"run-{number}", {"number": number})
        halving.on_trial_add(None, trial)  # type: ignore[arg-type]
        if number == first[0]:
            halving.adopt(trial.trial_id, str(number))
        for epoch in range(first[1] if number == first[0] else 1, EPOCHS + 1):
            if (number, epoch) == kill:
                return ended
            result = {"epoch": epoch, METRIC: known[number][epoch - 1]}
            if epoch == EPOCHS:
                halving.on_trial_complete(None, trial, result)  # type: ignore[arg-type]
                recorded.setdefault(number, {})[epoch] = result[METRIC]
                ended.append(epoch)
                break
            decision = halving.on_trial_result(None, trial, result)  # type: ignore[arg-type]
            recorded.setdefault(number, {})[epoch] = result[METRIC]
            if decision == "STOP":
                assert trial.trial_id in halving.pruned
                ended.append(epoch)
                break
    return ended


@pytest.mark.parametrize("seed", range(5))
def test_a_search_killed_anywhere_and_gone_on_with_stops_the_same_trials_at_the_same_epochs(seed: int) -> None:
    known = curves(seed)
    whole = search(new_halving(), known, {}, (0, 1))
    assert whole[0] == EPOCHS and min(whole) == 1  # trial 0 is never stopped, others are
    for number, last in enumerate(whole):
        for epoch in range(1, last + 1):
            recorded: Recorded = {}
            before = search(new_halving(), known, recorded, (0, 1), kill=(number, epoch))
            halving = new_halving()
            for trial, values in recorded.items():
                halving.replay(str(trial), values)
            # The trial goes on with the epoch that had not been judged, or from a checkpoint a little older.
            again_from = max(epoch - seed, 1)
            assert before + search(halving, known, {}, (number, again_from)) == whole


def test_a_result_without_an_accuracy_is_judged_by_nobody_and_judges_nobody() -> None:
    halving = new_halving()
    trials = [StoredTrial(f"run-{number}", {"number": number}) for number in range(1, 5)]
    for trial in trials:
        halving.on_trial_add(None, trial)  # type: ignore[arg-type]
    told = [
        halving.on_trial_result(None, trial, {"epoch": 1, METRIC: value})  # type: ignore[arg-type]
        for trial, value in zip(trials, (float("nan"), None, 0.5, 0.1), strict=True)
    ]
    assert told == ["CONTINUE", "CONTINUE", "CONTINUE", "STOP"]


def test_others_are_measured_by_what_an_epoch_came_to_when_it_was_trained_again() -> None:
    halving = new_halving()
    halving.replay("0", {1: 0.9})
    again, other = StoredTrial("again", {"number": 5}), StoredTrial("other", {"number": 6})
    for trial in (again, other):
        halving.on_trial_add(None, trial)  # type: ignore[arg-type]
    halving.adopt("again", "0")
    assert halving.on_trial_result(None, again, {"epoch": 1, METRIC: 0.3}) == "CONTINUE"  # type: ignore[arg-type]  # not judged twice
    assert halving.on_trial_result(None, other, {"epoch": 1, METRIC: 0.5}) == "CONTINUE"  # type: ignore[arg-type]  # 0.9 would have stopped it
