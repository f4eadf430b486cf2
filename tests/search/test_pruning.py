"""Who is stopped by a pruning rule, on stored curves: no Ray runtime, nothing is trained."""

from __future__ import annotations

import random
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from tune_cropshield.config.space import SearchSettings
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.pruning import PruningRule, SuccessiveHalving, build_pruning

EPOCHS = 9
Recorded = dict[int, dict[int, float]]  # trial -> {epoch: best so far}, as the journal holds them


def curves(seed: int) -> list[list[float]]:
    """The best-so-far of 10 trials."""
    chance = random.Random(seed)
    return [list(accumulate((chance.random() for _ in range(EPOCHS)), max)) for _ in range(10)]


def new_rule() -> SuccessiveHalving:
    return SuccessiveHalving(EPOCHS, grace_epochs=1, reduction_factor=2)


def search(
    rule: PruningRule,
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
        for epoch in range(first[1] if number == first[0] else 1, EPOCHS + 1):
            if (number, epoch) == kill:
                return ended
            value = known[number][epoch - 1]
            stop = rule.judge(number, epoch, value)
            recorded.setdefault(number, {})[epoch] = value
            if stop or epoch == EPOCHS:
                ended.append(epoch)
                break
    return ended


@pytest.mark.parametrize("seed", range(5))
def test_a_search_killed_anywhere_and_gone_on_with_stops_the_same_trials_at_the_same_epochs(seed: int) -> None:
    known = curves(seed)
    whole = search(new_rule(), known, {}, (0, 1))
    assert whole[0] == EPOCHS and min(whole) == 1
    for number, last in enumerate(whole):
        for epoch in range(1, last + 1):
            recorded: Recorded = {}
            before = search(new_rule(), known, recorded, (0, 1), kill=(number, epoch))
            rule = new_rule()
            for trial, values in recorded.items():
                for known_epoch, value in values.items():
                    rule.judge(trial, known_epoch, value)
            # The trial goes on with the epoch that had not been judged, or from a checkpoint a little older.
            again_from = max(epoch - seed, 1)
            assert before + search(rule, known, {}, (number, again_from)) == whole


def test_others_are_measured_by_what_an_epoch_came_to_when_it_was_trained_again() -> None:
    rule = new_rule()
    rule.judge(5, 1, 0.9)
    assert not rule.judge(5, 1, 0.3)  # not judged twice
    assert not rule.judge(6, 1, 0.5)  # 0.9 would have stopped it


def test_at_each_pruning_step_the_worse_stop() -> None:
    rule = SuccessiveHalving(epochs=9, grace_epochs=1, reduction_factor=3)
    told = [rule.judge(number, 1, value) for number, value in enumerate([0.5, 0.6, 0.4, 0.55, 0.58])]
    assert told == [False, False, True, False, False]  # the cut-offs: none, 0.5, 0.567, 0.533, 0.55
    assert [rule.judge(number, 2, 0.0) for number in (0, 1, 4)] == [False, False, False]  # no step
    assert [rule.judge(number, 3, value) for number, value in ((0, 0.5), (1, 0.49), (4, 0.8))] == [False, True, False]


@st.composite
def settings(draw: st.DrawFn) -> tuple[int, int, float]:
    """Returns epochs, grace_epochs and reduction_factor."""
    epochs = draw(st.integers(1, 40))
    return epochs, draw(st.integers(1, epochs)), draw(st.sampled_from([1.5, 2.0, 2.5, 3.0, 3.7, 4.0, 7.0]))


@given(settings(), st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_the_decisions_are_those_of_rays_asha(chosen: tuple[int, int, float], seed: int, num_trials: int) -> None:
    """Trials run side by side, epochs reported in any order; a trial may report the same best-so-far many times."""
    epochs, grace_epochs, reduction_factor = chosen
    ours = SuccessiveHalving(epochs, grace_epochs, reduction_factor)
    rays = AsyncHyperBandScheduler("epoch", "value", "max", epochs, grace_epochs, reduction_factor)
    chance = random.Random(seed)
    trials = {number: Trial("none", stub=True) for number in range(num_trials)}
    for trial in trials.values():
        rays.on_trial_add(None, trial)  # type: ignore[arg-type]
    best = dict.fromkeys(trials, 0.0)
    epoch = dict.fromkeys(trials, 0)
    while best:
        number = chance.choice(list(best))
        epoch[number] += 1
        best[number] = max(best[number], chance.choice([0.1, 0.2, 0.5, chance.random()]))
        result = {"epoch": epoch[number], "value": best[number]}
        stop = ours.judge(number, epoch[number], best[number])
        if epoch[number] == epochs:  # it ends by itself
            rays.on_trial_complete(None, trials[number], result)  # type: ignore[arg-type]
            del best[number]
            continue
        assert stop == (rays.on_trial_result(None, trials[number], result) == "STOP")  # type: ignore[arg-type]
        if stop:
            del best[number]


def test_without_pruning_nobody_is_stopped() -> None:
    rule = build_pruning(SearchSettings(pruning="none"))
    assert not any(rule.judge(number, 2, 1.0 - number / 10) for number in range(10))


def test_a_users_own_rule_is_found_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Impatient:\n"
        "    def __init__(self, epochs, grace_epochs, reduction_factor):\n"
        "        self.last = epochs - grace_epochs\n"
        "    def judge(self, number, epoch, value):\n"
        "        return epoch >= self.last\n"
        "def nothing(**settings):\n"
        "    return None\n"
    )
    rule = build_pruning(SearchSettings(pruning=f"{tmp_path / 'mine.py'}:Impatient", epochs=9, grace_epochs=3))
    assert [rule.judge(1, epoch, 0.5) for epoch in (5, 6)] == [False, True]
    with pytest.raises(ConfigError, match="returned None, which has no method judge"):
        build_pruning(SearchSettings(pruning=f"{tmp_path / 'mine.py'}:nothing"))
