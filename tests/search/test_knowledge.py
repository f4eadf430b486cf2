"""What earlier trials say of a search to come, on plain rows."""

from __future__ import annotations

from typing import Any

import pytest

from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.knowledge import (
    Knowledge,
    Past,
    PastTrial,
    distance,
    knowledge_of,
    starting_settings,
)
from tune_cropshield.search.start_points import start_points

AXES: dict[str, Any] = {
    "lr": {"log": [1e-5, 1e-1]},
    "max_norm": {"choice": ["none", 0.5, 1.0, 5.0]},
    "effective_batch": {"choice": [16, 32, 64]},
}


def space(searched: dict[str, Any] | None = None, **trial: Any) -> SearchSpace:
    tables = {"trial": {"model": "tiny_cnn", "image_size": 32, **trial}, "space": searched or AXES}
    return space_from(tables, {}, "space.toml")


def past(*rows: tuple[dict[str, Any], float], name: str = "first") -> Past:
    return Past(name, tuple(PastTrial(parameters, {1: value}) for parameters, value in rows))


def rates(*pairs: tuple[float, float], name: str = "first") -> Past:
    return past(*(({"lr": lr}, value) for lr, value in pairs), name=name)


def test_quality_is_the_share_of_its_own_search_that_a_trial_is_better_than() -> None:
    assert rates((1e-4, 0.2), (1e-3, 0.9), (1e-2, 0.5), (1e-1, 0.5)).qualities == [0.125, 0.875, 0.5, 0.5]


def test_a_trial_that_failed_is_worse_than_any_that_worked() -> None:
    trials = (PastTrial({"lr": 1e-1}, {1: 0.9}, failed=True), PastTrial({"lr": 1e-4}, {1: 0.1}))

    assert Past("first", trials).qualities == [0.25, 0.75]


def test_a_trial_that_came_through_more_parts_is_better() -> None:
    trials = (PastTrial({"lr": 1e-3}, {1: 0.9}, parts=1), PastTrial({"lr": 1e-4}, {1: 0.9, 2: 0.7}, parts=2))

    assert Past("first", trials).qualities == [0.25, 0.75]


def test_a_setting_takes_the_nearest_values_and_leaves_out_what_is_not_searched_or_compares_with_nothing() -> None:
    searched = space({**AXES, "augment": {"choice": ["none", "moderate"]}})
    setting = {"lr": 0.5, "max_norm": 4.0, "effective_batch": 128, "augment": "aggressive", "weight_decay": 1e-2}

    assert searched.fitted(setting) == {"lr": 1e-1, "max_norm": 5.0, "effective_batch": 64}


def test_no_clipping_becomes_the_largest_bound_and_no_early_stopping_the_longest() -> None:
    searched = space({"max_norm": {"log": [0.5, 10.0]}, "early_stopping": {"int": [2, 9]}})

    assert searched.fitted({"max_norm": "none", "early_stopping": 0}) == {"max_norm": 10.0, "early_stopping": 9}


def test_what_an_earlier_search_held_fixed_counts_as_tried() -> None:
    first = Past("first", (PastTrial({"lr": 1e-3}, {1: 0.5}),), fixed={"effective_batch": 32, "image_size": 96})

    assert first.settings_in(space()) == [({"lr": 1e-3, "effective_batch": 32}, 0.5)]


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ({"lr": 1e-5}, {"lr": 1e-1}, 1.0),
        ({"lr": 1e-4}, {"lr": 1e-3}, 0.25),
        ({"max_norm": "none"}, {"max_norm": 5.0}, 1 / 3),
        ({"max_norm": "none"}, {"max_norm": 0.5}, 1.0),
        ({"effective_batch": 16}, {"effective_batch": 32}, 0.5),
        ({"lr": 1e-4, "effective_batch": 16}, {"lr": 1e-4, "effective_batch": 64}, 0.5**0.5),
        ({"lr": 1e-4}, {"max_norm": 0.5}, 1.0),
    ],
)
def test_distance_is_measured_on_each_parameters_axis(one: Any, other: Any, apart: float) -> None:
    assert distance(one, other, space()) == pytest.approx(apart)
    assert distance(other, one, space()) == pytest.approx(apart)


def test_words_differ_or_do_not() -> None:
    searched = space({"augment": {"choice": ["none", "conservative", "moderate"]}})

    assert distance({"augment": "none"}, {"augment": "conservative"}, searched) == 1.0
    assert distance({"augment": "none"}, {"augment": "none"}, searched) == 0.0


def test_the_best_of_each_search_come_first_and_a_near_one_only_once() -> None:
    first = rates((1e-5, 0.1), (1e-4, 0.3), (1e-3, 0.9), name="first")
    second = rates((1e-5, 0.1), (1.1e-3, 0.6), (3e-2, 0.5), (1e-2, 0.55), name="second")
    third = rates((1e-5, 0.4), (2e-5, 0.1), (1e-1, 0.2), name="third")

    # 1.1e-3 has the most trials below it; 1e-3 is as good as the same, and 1e-5 is another search's best
    assert starting_settings([first, second, third], space()) == [{"lr": 1.1e-3}, {"lr": 1e-5}]


def test_other_good_settings_follow_the_further_the_better() -> None:
    spread = [(10.0 ** -(5 - step / 4), 0.0) for step in range(12)]  # bad, from 1e-5 to 1.8e-3
    good = [(2e-3, 0.90), (2.5e-3, 0.89), (5e-2, 0.88), (1e-2, 0.87)]

    found = starting_settings([rates(*spread, *good)], space(), limit=3)

    assert found == [{"lr": 2e-3}, {"lr": 5e-2}, {"lr": 1e-2}]  # not 2.5e-3, which is next to the first


def test_one_trial_alone_is_no_evidence() -> None:
    assert starting_settings([rates((1e-3, 0.9))], space()) == []
    assert starting_settings([rates((1e-3, 0.5), (1e-2, 0.5))], space()) == []
    assert starting_settings([], space()) == []


def test_a_prior_weakens_with_each_own_trial_and_is_gone_after_twelve() -> None:
    known = knowledge_of([rates(*((10.0 ** -(1 + step / 10), step) for step in range(40)))], lr_only())

    counts = [len(known.prior(lr_only(), [0.5] * own)) for own in (0, 3, 6, 11, 12, 50)]

    assert counts == [40, 36, 24, 4, 0, 0]


def test_a_prior_is_on_the_scale_of_the_own_values() -> None:
    known = knowledge_of([rates((1e-5, 0.1), (1e-4, 0.2), (1e-3, 0.4), (1e-2, 0.3))], lr_only())

    # qualities 1/8, 3/8, 5/8, 7/8 of: 0.4 - 0.4 = 0 below all, then 0.4, 0.6, 0.8
    assert known.prior(lr_only(), [0.6, 0.4, 0.8]) == [
        ({"lr": 1e-5}, pytest.approx(0.15)),
        ({"lr": 1e-4}, pytest.approx(0.425)),
        ({"lr": 1e-2}, pytest.approx(0.575)),
        ({"lr": 1e-3}, pytest.approx(0.725)),
    ]
    assert [value for _, value in known.prior(lr_only(), [])] == [0.125, 0.375, 0.625, 0.875]
    assert [value for _, value in known.prior(lr_only(), [0.6])] == pytest.approx([-0.275, -0.025, 0.225, 0.475])


def test_a_prior_has_good_and_bad_in_the_proportion_in_which_they_were() -> None:
    known = knowledge_of([rates(*((10.0 ** -(1 + step / 50), step) for step in range(200)))], lr_only())

    values = [value for _, value in known.prior(lr_only(), [])]

    assert (len(values), min(values), max(values)) == (48, pytest.approx(0.0125), pytest.approx(0.9875))
    assert sum(value > 0.5 for value in values) == 24


def test_a_prior_leaves_out_settings_that_lack_a_parameter() -> None:
    assert knowledge_of([rates((1e-4, 0.1), (1e-3, 0.2))], space()).prior(space(), []) == []


def test_a_starting_point_that_an_earlier_search_has_tried_is_not_tried_again() -> None:
    tables = {"trial": {"model": "tiny_cnn", "image_size": 32}, "space": AXES, "start": [{"lr": 1e-2}, {"lr": 2e-2}]}
    searched, plan = space_from(tables, {}, "space.toml"), plan_for_cpu((16, 32, 64))
    known = knowledge_of([rates((1e-2, 0.2), (3e-3, 0.9))], searched)

    reference = {"lr": 1e-4, "max_norm": "none", "effective_batch": 32}
    assert start_points(searched, plan, known) == [reference, {"lr": 3e-3}, {"lr": 2e-2}]
    assert start_points(searched, plan, Knowledge()) == [reference, {"lr": 1e-2}, {"lr": 2e-2}]


def test_what_is_learnt_becomes_a_pair_where_pairs_are_searched() -> None:
    tables = {"trial": {"model": "tiny_cnn", "image_size": 32}, "space": AXES, "search": {"pairs": "all"}}
    searched = space_from(tables, {}, "space.toml")
    known = Knowledge({"first": 2}, ({"lr": 1e-3, "effective_batch": 48},), ())

    assert start_points(searched, plan_for_cpu((16, 32)), known)[1] == {"lr": 1e-3, "pair": "32x1"}


def lr_only() -> SearchSpace:
    return space({"lr": {"log": [1e-5, 1e-1]}})
