"""When a search is flat: what half as many trials again may gain, against the noise of its validation photographs."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from begun_search import SPACE, Photographs, begun, prepared
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from tune_cropshield.api.resume import resumed_search
from tune_cropshield.config.space import SearchSettings
from tune_cropshield.search.endings import FINISHED, OUTCOME
from tune_cropshield.search.flat import _mean_best_of, ended_values, never_flat, outlook
from tune_cropshield.search.run import run_search
from tune_cropshield.search.trial_end import after_trial
from tune_cropshield.search.views.view import SearchView

FLAT_SPACE = SPACE.replace("trials = 3", "trials = 40\nstop_when_flat = true")
# 19 equal trials and one that is better: in half of all orders it is among the first ten.
ONE_IS_BETTER = [0.9] + 19 * [0.5]


def ended(study: optuna.Study, value: float | None, state: TrialState = TrialState.COMPLETE) -> None:
    study.add_trial(
        optuna.trial.create_trial(
            params={"lr": 1e-3, "weight_decay": 1e-4},
            distributions={
                "lr": FloatDistribution(1e-5, 1e-1, log=True),
                "weight_decay": FloatDistribution(1e-6, 1e-2, log=True),
            },
            state=state,
            value=value if state == TrialState.COMPLETE else None,
            intermediate_values={} if value is None else {1: value / 2, 2: value},
            user_attrs={OUTCOME: FINISHED},
        )
    )


def test_the_mean_best_of_some_values_is_that_over_all_ways_to_choose_them() -> None:
    assert _mean_best_of([0.1, 0.4, 0.2], 2) == pytest.approx(1 / 3)  # 0.4, 0.4 and 0.2
    assert _mean_best_of([0.1, 0.4, 0.2], 1) == pytest.approx(0.7 / 3)
    assert _mean_best_of([0.1, 0.4, 0.2], 3) == 0.4


def test_a_good_trial_that_came_early_may_be_repeated_by_chance() -> None:
    found = outlook(ONE_IS_BETTER, 100)
    assert found is not None
    assert (found.trials, found.gain, found.noise) == (10, pytest.approx(0.2), pytest.approx(0.031018, abs=1e-6))
    assert not found.is_flat


def test_what_the_later_trials_have_gained_counts_where_it_is_more() -> None:
    found = outlook(ONE_IS_BETTER[::-1], 100)
    assert found is not None
    assert found.gain == pytest.approx(0.4)


def test_a_flat_search_says_what_it_expects() -> None:
    found = outlook([0.88, 0.89, 0.87, 0.89, 0.886] * 5, 281)
    assert found is not None and found.is_flat
    assert found.sentence() == (
        "another 12 trials are expected to gain at most 0.0 points, less than the noise of 281 validation photographs "
        "(1.9 points)"
    )


def test_with_every_photograph_right_there_is_still_an_error_and_nothing_to_gain() -> None:
    found = outlook(20 * [1.0], 50)
    assert found is not None and found.is_flat
    assert found.noise == pytest.approx(0.019422, abs=1e-6)


def test_nothing_is_expected_of_fewer_than_20_trials() -> None:
    assert outlook(19 * [0.5], 100) is None


def test_a_search_too_short_to_be_called_flat_says_so() -> None:
    assert never_flat(SearchSettings(trials=20, stop_when_flat=True)) == (
        "stop_when_flat has no effect here: it ends a search after 20 trials at the earliest, and this one has "
        "20 (--trials N)"
    )
    assert never_flat(SearchSettings(trials=21, stop_when_flat=True)) is None
    assert never_flat(SearchSettings(trials=20)) is None


def test_trials_count_by_their_best_epoch_once_they_have_ended() -> None:
    study = optuna.create_study(direction="maximize")
    for value, state in (
        (0.5, TrialState.COMPLETE),
        (0.3, TrialState.PRUNED),
        (0.9, TrialState.FAIL),
        (0.8, TrialState.RUNNING),
        (None, TrialState.PRUNED),  # it diverged in its first epoch
        (0.6, TrialState.COMPLETE),
    ):
        ended(study, value, state)
    assert ended_values(study) == [0.5, 0.3, 0.0, 0.6]


@pytest.mark.parametrize(("space", "goes_on"), [(FLAT_SPACE, False), (SPACE.replace("= 3", "= 40"), True)])
def test_no_new_trial_begins_once_a_search_that_is_to_stop_is_flat(
    drawn_leaves: Path, tmp_path: Path, space: str, goes_on: bool
) -> None:
    (tmp_path / "out").mkdir()
    found = prepared(Photographs(drawn_leaves, tmp_path / "cache"), tmp_path / "space.toml", space)
    search = begun(found, tmp_path / "out")
    for _ in range(19):
        ended(search.study, 0.5)
    after_trial(search, len(search.study.trials) - 1, FINISHED, None)
    assert search.steering.next_trial() is not None  # it is the 20th, and under way
    ended(search.study, 0.5)
    after_trial(search, len(search.study.trials) - 1, FINISHED, None)
    assert (search.steering.next_trial() is not None) == goes_on
    assert (search.early_end.enough is None) == goes_on
    assert not search.early_end.is_due()  # what was begun comes to its end


@pytest.mark.ray
def test_a_flat_search_that_is_resumed_ends_before_its_next_trial(drawn_leaves: Path, tmp_path: Path) -> None:
    out, photographs = tmp_path / "out", Photographs(drawn_leaves, tmp_path / "cache")
    out.mkdir()
    first = begun(prepared(photographs, tmp_path / "space.toml", FLAT_SPACE), out)
    for _ in range(22):
        ended(first.study, 0.5)

    outcome = run_search(begun(prepared(photographs, tmp_path / "space.toml", FLAT_SPACE), out))
    assert outcome.stopped is not None and outcome.go_on_with == ("--no-stop-when-flat",)
    assert outcome.stopped.startswith("another 11 trials are expected to gain at most 0.0 points, less than the noise")
    assert not list(out.glob("t*/config.toml"))  # none was begun
    resumed = resumed_search(out, {"stop_when_flat": False}, SearchView())
    assert resumed.space.search.stop_when_flat is False
