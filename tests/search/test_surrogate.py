"""The Gaussian process that proposes, on functions whose best point is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler

from tune_cropshield.search.journal import quiet_optuna
from tune_cropshield.search.surrogate import SurrogateSampler, _UnitCube

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "weight_decay": FloatDistribution(0.0, 1.0),
    "batch": IntDistribution(0, 4),
}


def value(settings: dict[str, Any]) -> float:
    """1 at lr 1e-3, weight_decay 0.3, batch 3; smooth."""
    away = (
        ((math.log10(settings["lr"]) + 3) / 4) ** 2
        + (settings["weight_decay"] - 0.3) ** 2
        + ((settings["batch"] - 3) / 4) ** 2
    )
    return math.exp(-8 * away)


def best_of(sampler: BaseSampler, trials: int) -> float:
    with quiet_optuna():
        study = optuna.create_study(direction="maximize", sampler=sampler)
        for _ in range(trials):
            trial = study.ask(SPACE)
            study.tell(trial, value(trial.params))
        return study.best_value


def test_it_finds_the_best_point_of_a_smooth_function_that_random_settings_miss() -> None:
    ours = [best_of(SurrogateSampler(seed, 4), 20) for seed in range(5)]
    by_chance = [best_of(RandomSampler(seed), 20) for seed in range(5)]
    assert np.median(ours) > 0.98
    assert np.median(by_chance) < 0.9


@pytest.mark.parametrize("at_once", [2, 4])
def test_what_is_proposed_at_once_differs(at_once: int) -> None:
    with quiet_optuna():
        study = optuna.create_study(direction="maximize", sampler=SurrogateSampler(0, 4))
        for _ in range(8):
            trial = study.ask(SPACE)
            study.tell(trial, value(trial.params))
        rates = [math.log10(study.ask(SPACE).params["lr"]) for _ in range(at_once)]
    assert len({round(rate, 1) for rate in rates}) > 1


def test_before_enough_trials_have_a_value_settings_are_random_and_the_same_seed_gives_the_same() -> None:
    def asked(seed: int) -> list[float]:
        with quiet_optuna():
            study = optuna.create_study(direction="maximize", sampler=SurrogateSampler(seed, 4))
            return [study.ask(SPACE).params["lr"] for _ in range(3)]

    assert asked(0) == asked(0) != asked(1)


@pytest.mark.parametrize(
    ("distribution", "value", "coordinates"),
    [
        (FloatDistribution(1e-4, 1e-2, log=True), 1e-3, [0.5]),
        (FloatDistribution(0.0, 4.0), 1.0, [0.25]),
        (IntDistribution(0, 4), 3, [0.75]),
        (IntDistribution(16, 256, log=True), 64, [0.5]),
        (CategoricalDistribution(("a", "b", "c")), "b", [0.0, math.sqrt(0.5), 0.0]),
    ],
)
def test_a_setting_lies_where_its_axis_says(
    distribution: BaseDistribution, value: object, coordinates: list[float]
) -> None:
    assert _UnitCube({"x": distribution}).points([{"x": value}]).tolist() == [pytest.approx(coordinates)]


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(1e-4, 1e-2, log=True),
        FloatDistribution(-1.0, 4.0),
        IntDistribution(0, 4),
        IntDistribution(16, 256, log=True),
        CategoricalDistribution(("a", "b", "c")),
    ],
)
def test_what_is_drawn_lies_in_the_space_and_reaches_all_of_it(distribution: BaseDistribution) -> None:
    cube, rng = _UnitCube({"x": distribution}), np.random.default_rng(0)
    settings = [cube.anywhere(rng) for _ in range(300)]
    for drawn in (settings, [cube.near(setting, rng) for setting in settings]):
        assert all(distribution._contains(distribution.to_internal_repr(setting["x"])) for setting in drawn)
        places = cube.points(drawn)
        assert places.min(axis=0).max() < 0.05 and places.max(axis=0).min() > 0.68
