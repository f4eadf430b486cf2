"""What is tried first, where the space does not hold the reference setting."""

from __future__ import annotations

from typing import Any

import pytest

from tune_cropshield.api.space import new_space
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.knowledge import Knowledge
from tune_cropshield.search.start_points import (
    known_trials,
    reference_differs,
    reference_notes,
    reference_point,
    start_points,
)


def space(model: str = "tiny_cnn", **searched: Any) -> SearchSpace:
    tables = {"trial": {"model": model, "image_size": 32}, "space": searched, "search": {"trials": 2, "epochs": 4}}
    return space_from(tables, {}, "space.toml")


@pytest.mark.parametrize(
    ("domain", "taken"),
    [({"log": [0.1, 10.0]}, 10.0), ({"choice": [0.5, 1.0, 5.0]}, 5.0), ({"uniform": [0.5, 2.0]}, 2.0)],
)
def test_no_clipping_becomes_the_loosest_clipping_and_the_note_says_so(domain: dict[str, Any], taken: float) -> None:
    searched = space(max_norm=domain)

    assert reference_point(searched) == {"max_norm": taken}
    assert reference_differs(searched) == {"max_norm": ("none", taken)}
    assert reference_notes(searched) == [
        f"trial 0 has max_norm = {taken:.3g}, the largest bound in the search space: the reference setting's "
        '"none" (no clipping) is not in it'
    ]


def test_a_space_that_holds_none_is_told_nothing() -> None:
    searched = space(max_norm={"choice": [0.5, "none"]}, lr={"log": [1e-5, 1e-2]})

    assert reference_point(searched) == {"max_norm": "none", "lr": 1e-4}
    assert reference_notes(searched) == []


def test_without_a_baseline_the_reference_setting_is_not_tried_and_not_spoken_of() -> None:
    searched = space(max_norm={"choice": [0.5, 1.0]}, lr={"log": [1e-5, 1e-2]})
    first = {"max_norm": 0.5, "lr": 3e-3}
    for baseline, tried in ((True, [{"max_norm": 1.0, "lr": 1e-4}, first]), (False, [first])):
        search = searched.search.model_copy(update={"baseline": baseline})
        found = searched.model_copy(update={"search": search, "start": [first]})
        assert start_points(found, plan_for_cpu((32,))) == tried
        assert bool(reference_notes(found)) is baseline


@pytest.mark.parametrize("name", ["agc", "clip_value"])
def test_another_clipping_that_cannot_be_off_is_told_too(name: str) -> None:
    searched = space(**{name: {"log": [0.01, 0.2]}})

    assert reference_point(searched) == {name: 0.2}
    assert reference_differs(searched) == {name: ("none", 0.2)}


def test_an_early_stopping_that_cannot_be_off_waits_as_long_as_it_may() -> None:
    searched = space(early_stopping={"int": [2, 9]})

    assert reference_point(searched) == {"early_stopping": 9}
    assert reference_notes(searched) == [
        "trial 0 has early_stopping = 9: the reference setting's 0 is not in the search space"
    ]


def test_another_value_becomes_the_nearest() -> None:
    assert reference_notes(space(lr={"log": [1e-3, 1e-1]})) == [
        "trial 0 has lr = 0.001: the reference setting's 0.0001 is not in the search space"
    ]


@pytest.mark.parametrize(
    ("pairs", "shown"), [("all", {"lr": 1e-3, "pair": "48x2"}), ("fastest", {"lr": 1e-3, "effective_batch": 96})]
)
def test_what_earlier_searches_know_is_shown_with_batches_of_this_search(pairs: str, shown: dict[str, Any]) -> None:
    searched = space_from(
        {
            "trial": {"model": "tiny_cnn"},
            "space": {"lr": {"log": [1e-4, 1e-2]}, "effective_batch": {"choice": [32, 96, 100]}},
            "search": {"pairs": pairs},
        },
        {},
        "space.toml",
    )
    knowledge = Knowledge(rows=(({"lr": 1e-3, "effective_batch": 100}, 0.9),))

    known = known_trials(searched, plan_for_cpu((32, 96)), knowledge, [])

    assert known == [(shown, 0.9)]


def test_built_in_spaces_for_adamw_try_the_reference_setting_and_then_what_is_usual() -> None:
    from_scratch, fine_tuned = (new_space({"space": name}) for name in ("cropshield_cnn", "efficientnet_b0"))
    plan = plan_for_cpu((16, 32, 64, 128))

    clipped = {"max_norm": 1.0, "weight_decay": 1e-2}
    reference = {"lr": 1e-4, "max_norm": "none", "weight_decay": 1e-4, "effective_batch": 32}
    assert start_points(from_scratch, plan) == [
        {**reference, "label_smoothing": 0.0},
        {"lr": 1e-3, **clipped, "effective_batch": 32, "label_smoothing": 0.1},
        {"lr": 3e-3, **clipped, "effective_batch": 16, "label_smoothing": 0.1},
        {"lr": 4e-4, **clipped, "effective_batch": 16, "label_smoothing": 0.1},
    ]
    assert start_points(fine_tuned, plan) == [
        reference,
        {"lr": 3e-4, **clipped, "effective_batch": 32},
        {"lr": 1e-3, **clipped, "effective_batch": 32},
    ]
