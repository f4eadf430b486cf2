"""Which parameters a sampler sees as ordered, and how."""

from __future__ import annotations

import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tune_cropshield.search.axes import axes


@pytest.mark.parametrize(
    ("name", "choices", "order"),
    [
        ("max_norm", ("none", 0.5, 1.0, 5.0, 2.0), (0.5, 1.0, 2.0, 5.0, "none")),  # no bound is the largest
        ("effective_batch", (64, 16, 128, 32), (16, 32, 64, 128)),
        ("pair", ("16x2", "32x1", "8x2", "16x1"), ("8x2", "16x1", "16x2", "32x1")),  # by batch, then micro-batch
        ("augment", ("moderate", "none", "aggressive"), ("none", "moderate", "aggressive")),
        ("label_smoothing", (0.1, 0.0), (0.0, 0.1)),
    ],
)
def test_what_has_an_order_lies_on_an_axis_in_that_order(
    name: str, choices: tuple[object, ...], order: tuple[object, ...]
) -> None:
    axis = axes({name: CategoricalDistribution(choices)})[name]  # type: ignore[arg-type]
    assert axis.order == order
    assert axis.distribution == IntDistribution(0, len(order) - 1)
    assert [axis.shown(choice) for choice in order] == list(range(len(order)))
    assert [axis.meant(place) for place in range(len(order))] == list(order)


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("optimizer", CategoricalDistribution(("adamw", "sgd"))),
        ("nesterov", CategoricalDistribution((True, False))),  # of two values either is as far from the other
        ("fit", CategoricalDistribution(("crop", "pad", "squash"))),
        ("augment", CategoricalDistribution(("none", "mine.py:mine"))),  # nobody knows where it lies
        ("max_norm", CategoricalDistribution((1.0,))),
        ("lr", FloatDistribution(1e-5, 1e-1, log=True)),
        ("effective_batch", IntDistribution(16, 128)),
    ],
)
def test_ranges_and_words_without_an_order_stay_what_they_are(name: str, distribution: BaseDistribution) -> None:
    axis = axes({name: distribution})[name]
    assert (axis.distribution, axis.order) == (distribution, None)


def test_a_value_outside_a_range_is_seen_at_its_end_and_one_that_is_no_choice_is_refused() -> None:
    found = axes(
        {
            "lr": FloatDistribution(1e-5, 1e-1, log=True),
            "effective_batch": CategoricalDistribution((16, 32)),
            "optimizer": CategoricalDistribution(("adamw", "sgd")),
        }
    )
    assert (found["lr"].shown(1.0), found["lr"].shown(1e-7), found["lr"].shown(0.01)) == (1e-1, 1e-5, 0.01)
    for name, value in (("effective_batch", 64), ("optimizer", "lion")):
        with pytest.raises(ValueError):
            found[name].shown(value)
