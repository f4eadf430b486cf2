"""Schedules as pure functions of applied updates."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from tune_cropshield.training.schedules import Plateau, Schedule, Times, constant, cosine, lr_factors, onecycle, step


def test_onecycle_rises_to_one_at_the_end_of_warm_up_and_falls_to_almost_nothing() -> None:
    values = [onecycle(update, Times(100, warmup=20)) for update in range(100)]
    assert values[0] == pytest.approx(1 / 25)
    assert values[19] == pytest.approx(1.0)
    assert max(values) == values[19]
    assert values[99] == pytest.approx(4e-6)
    assert all(a < b for a, b in pairwise(values[:20]))
    assert all(a > b for a, b in pairwise(values[19:]))


def test_onecycle_without_warm_up_rises_for_thirty_percent_of_the_updates() -> None:
    values = [onecycle(update, Times(100)) for update in range(100)]
    assert values.index(max(values)) == 29


@pytest.mark.parametrize("schedule", [constant, cosine, step])
def test_warm_up_is_linear_from_a_twenty_fifth(schedule: Schedule) -> None:
    values = [schedule(update, Times(100, warmup=10, step=50)) for update in range(11)]
    assert values[0] == pytest.approx(0.04)
    assert values[5] == pytest.approx(0.52)
    assert values[10] == pytest.approx(1.0)


def test_cosine_is_half_way_down_in_the_middle_and_step_multiplies() -> None:
    assert cosine(50, Times(100)) == pytest.approx(0.5)
    times = Times(100, step=30, step_factor=0.1)
    assert [step(update, times) for update in (0, 29, 30, 60)] == pytest.approx([1, 1, 0.1, 0.01])


def test_the_table_has_one_factor_per_update() -> None:
    assert lr_factors("constant", 3, 5, 1.0, 10, 0.1).tolist() == pytest.approx(
        [0.04, 0.232, 0.424, 0.616, 0.808] + [1.0] * 10
    )


def test_plateau_drops_after_more_than_patience_epochs_without_improvement() -> None:
    plateau = Plateau(patience=2, factor=0.5)
    assert [plateau.epoch_ended(loss) for loss in (1.0, 0.9, 0.9, 0.95, 0.9, 0.9, 0.9, 0.9)] == [
        1,
        1,
        1,
        1,
        0.5,
        0.5,
        0.5,
        0.25,
    ]


def test_plateau_takes_nan_as_no_improvement() -> None:
    plateau = Plateau(patience=0, factor=0.1)
    assert plateau.epoch_ended(1.0) == 1.0
    assert plateau.epoch_ended(math.nan) == pytest.approx(0.1)
