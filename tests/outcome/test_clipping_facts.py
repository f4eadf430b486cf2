"""Whether clipping mattered, in plain words, from invented searches of which the answer is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

from tune_cropshield.outcome.report.clipping_facts import clipped_trials, clipping_kind, clipping_result
from tune_cropshield.outcome.report.search_record import read_search


@pytest.fixture
def sentences(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> Callable[..., str]:
    """Returns what is said of a search whose trials have these (bound, clip rate, gradient norm, accuracy)."""

    def of(*trials: tuple[object, float, float, float], optimizer: str = "adamw") -> str:
        invented = [
            InventedTrial(
                {**REFERENCE_SETTING, "max_norm": bound},
                [accuracy],
                metrics={"clip_rate": rate, "grad_norm_p50": norm, "grad_norm_p95": 3 * norm},
            )
            for bound, rate, norm, accuracy in trials
        ]
        invent_search(tmp_path / "s", drawn_leaves, shared_cache, invented)
        record = read_search(tmp_path / "s")
        kind = clipping_kind(record)
        return " ".join(clipping_result(clipped_trials(record, kind), kind, optimizer))

    return of


def test_a_search_without_clipping_says_so_and_tells_the_norms(sentences: Callable[..., str]) -> None:
    assert sentences(("none", 0.0, 2.0, 0.5), ("none", 0.0, 4.0, 0.6)) == (
        "No trial clipped its gradients. Half of the updates had a gradient norm below 3, 95 % below 9 "
        "(medians over the trials)."
    )


def test_bounds_that_no_gradient_reaches_did_nothing(sentences: Callable[..., str]) -> None:
    text = sentences(*[(5.0, 0.01, 1.0, 0.5)] * 3, *[("none", 0.0, 1.0, 0.5)] * 3)

    assert text.startswith("Clipping did nothing here: no bound changed more than 1.0 % of a trial's updates.")
    assert text.endswith("After epoch 1 all trials are equally accurate, whatever their max_norm.")


def test_bounds_below_every_gradient_were_a_learning_rate_multiplier(sentences: Callable[..., str]) -> None:
    trials = [*[(1.0, 1.0, 20.0, 0.5)] * 2, (5.0, 0.95, 10.0, 0.6), ("none", 0.0, 20.0, 0.4)]

    text = sentences(*trials)

    assert text.startswith("Clipping was mostly a learning-rate multiplier: in 3 of the 3 trials that clipped,")
    assert (
        "the typical gradient was multiplied by 0.05 to 0.5. AdamW divides each gradient by its running average size"
        in text
    )
    assert (
        "Whether max_norm changed the accuracy is not known: fewer than two of its values were tried in 3 "
        "trials or more."
    ) in text


def test_under_sgd_the_multiplier_is_a_smaller_learning_rate(sentences: Callable[..., str]) -> None:
    assert (
        "the typical update was multiplied by 0.05: with SGD this is the same as multiplying the learning rate "
        "by that factor."
    ) in sentences((1.0, 1.0, 20.0, 0.5), optimizer="sgd")


def test_bounds_that_shorten_only_large_gradients_are_a_guard(sentences: Callable[..., str]) -> None:
    text = sentences((1.0, 0.1, 0.5, 0.5), (5.0, 0.0, 0.5, 0.5), (0.5, 1.0, 0.5, 0.5))

    assert text.startswith(
        "In the 3 trials that clipped, 37 % of the updates were shortened on average: nearly all of them in 1 of "
        "the trials, hardly any in 1, "
    )


def test_accuracies_that_differ_by_more_than_chance_are_told_with_the_better_bound(
    sentences: Callable[..., str],
) -> None:
    text = sentences(
        *[(1.0, 0.1, 1.0, accuracy) for accuracy in (0.8, 0.81, 0.82, 0.83, 0.84)],
        *[("none", 0.0, 1.0, accuracy) for accuracy in (0.3, 0.31, 0.32, 0.33, 0.34)],
    )

    assert (
        "Accuracy differs between values of max_norm by more than chance (Kruskal-Wallis p = 0.009, 10 trials" in text
    )
    assert "the median is best with max_norm = 1.0" in text


def test_accuracies_that_chance_explains_are_called_so(sentences: Callable[..., str]) -> None:
    text = sentences(
        *[(1.0, 0.1, 1.0, accuracy) for accuracy in (0.5, 0.7, 0.6)],
        *[("none", 0.0, 1.0, accuracy) for accuracy in (0.55, 0.65, 0.61)],
    )

    assert "Differences in accuracy between values of max_norm could be chance" in text
