"""Schedules as pure functions of applied updates."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from test_step import linear, step_for
from torch import nn

from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.data.mixing import Targets
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.optimizers import build_optimizer
from tune_cropshield.training.schedules import (
    Plateau,
    Schedule,
    Times,
    constant,
    cosine,
    lr_factors,
    momentum_factors,
    onecycle,
    step,
)


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


def test_momentum_goes_from_095_to_085_and_back_while_the_rate_rises_and_falls() -> None:
    """At 0.9; 20 updates in all, of which the rate rises for 30 %: it turns between the fifth and the sixth."""
    momenta = (0.9 * momentum_factors(0.9, 4, 5, 0.0)).tolist()
    expected = [0.95, 0.9405, 0.9155, 0.8845, 0.8595, 0.85, 0.8513, 0.8550, 0.8610, 0.8688]
    assert momenta[:10] == pytest.approx(expected, abs=1e-4)
    assert momenta[-1] == pytest.approx(0.95)
    assert (0.9 * momentum_factors(0.9, 4, 5, 2.0)).tolist()[9] == pytest.approx(0.85)  # after two epochs of warm-up


@pytest.mark.parametrize(
    ("momentum", "low", "high"), [(0.8, 0.75, 0.85), (0.98, 0.97, 0.99), (0.03, 0.0, 0.06), (0.5, 0.45, 0.55)]
)
def test_momentum_swings_around_its_setting_and_stays_between_0_and_1(momentum: float, low: float, high: float) -> None:
    momenta = momentum * momentum_factors(momentum, 4, 5, 0.0)
    assert [float(momenta.min()), float(momenta.max())] == pytest.approx([low, high], abs=1e-6)


UPDATES = 20


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    torch.manual_seed(5)
    return [(torch.randn(4, 3, 2, 2), torch.randint(3, (4,))) for _ in range(UPDATES)]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onecycle_with_sgd_trains_as_torchs_scheduler_does_and_skipped_updates_move_nothing(
    precision: Precision,
) -> None:
    theirs = linear()
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(sgd, max_lr=0.1, total_steps=UPDATES)
    rates, momenta = [], []
    for images, labels in batches():
        rates.append(sgd.param_groups[0]["lr"])
        momenta.append(sgd.param_groups[0]["momentum"])
        sgd.zero_grad()
        nn.functional.cross_entropy(theirs(images), labels).backward()
        sgd.step()
        scheduler.step()

    ours = linear()
    step = step_for(ours, precision=precision, scale=64.0, factors=lr_factors("onecycle", 4, 5, 0.0, 1, 0.1))
    step.momentum_factors = momentum_factors(0.9, 4, 5, 0.0)
    step.optimizer = build_optimizer(ours, "sgd", step.lr, weight_decay=0.0, momentum=0.9)
    for number, (images, labels) in enumerate(batches()):
        assert float(step.lr) == pytest.approx(rates[number], rel=1e-5)
        assert 0.9 * float(step.momentum_factors[number]) == pytest.approx(momenta[number], rel=1e-5)
        for values in [torch.full_like(images, torch.inf), images] if number in (0, 7) else [images]:
            weight = step.loss.weight(Targets(labels))
            step.log.start()
            step.micro_step(values, Targets(labels), weight)
            step.update(weight)
    assert int(step.updates) == UPDATES
    tolerance = 1e-5 if precision == "fp32" else 3e-3
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=tolerance, atol=tolerance)


def test_only_sgd_with_momentum_under_onecycle_swings() -> None:
    def factors(**settings: object) -> torch.Tensor | None:
        trial = TrialConfig.model_validate({"model": "tiny_cnn", "image_size": 32, "epochs": 2, **settings})
        return build_trainer(trial, 3, torch.arange(60) % 3, torch.device("cpu")).step.momentum_factors

    swings = factors(optimizer="sgd", schedule="onecycle")
    assert swings is not None and swings.shape == (4,)  # 2 epochs of 2 updates
    assert factors(optimizer="sgd", schedule="onecycle", momentum=0.0) is None
    assert factors(optimizer="sgd", schedule="cosine") is None
    assert factors(optimizer="adamw", schedule="onecycle") is None
