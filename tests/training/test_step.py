"""One optimizer window: unscaling, clipping, skipping, counting."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from tune_cropshield.config.settings import Precision
from tune_cropshield.data.mixing import Targets
from tune_cropshield.training.clipping import Clipping, chosen_clipping
from tune_cropshield.training.ema import WeightAverage
from tune_cropshield.training.graphs import Runner
from tune_cropshield.training.losses import CrossEntropy
from tune_cropshield.training.optimizers import build_optimizer
from tune_cropshield.training.precision import gradient_scaler
from tune_cropshield.training.schedules import lr_factors
from tune_cropshield.training.step import WindowStep
from tune_cropshield.training.update_log import UpdateLog

CPU = torch.device("cpu")


def step_for(
    model: nn.Module,
    *,
    precision: Precision = "fp32",
    optimizer: str = "sgd",
    clipping: Clipping | None = None,
    scale: float = 65536.0,
    average: WeightAverage | None = None,
    factors: torch.Tensor | None = None,
    peak_lr: float = 0.1,
    weight_decay: float = 0.0,
    runner: Runner | None = None,
) -> WindowStep:
    lr = torch.zeros(())
    return WindowStep(
        model,
        build_optimizer(model, optimizer, lr, weight_decay, momentum=0.0),
        gradient_scaler(precision, CPU, scale),
        lr=lr,
        peak_lr=peak_lr,
        lr_factors=torch.ones(100) if factors is None else factors,
        clipping=clipping,
        precision=precision,
        loss=CrossEntropy(),
        average=average,
        log=UpdateLog(100, CPU),
        runner=runner,
    )


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3))


def make_update(step: WindowStep, images: torch.Tensor, labels: torch.Tensor) -> None:
    weight = step.loss.weight(Targets(labels))
    step.micro_step(images, Targets(labels), weight)
    step.update(weight)


BATCH = (torch.linspace(-1, 1, 4 * 12).view(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))
POISON = (torch.full((4, 3, 2, 2), float("inf")), torch.tensor([0, 1, 2, 0]))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_update_with_inf_gradients_changes_neither_weights_nor_counters_nor_average(
    precision: Precision, optimizer: str
) -> None:
    model = linear()
    average = WeightAverage(model, 0.9)
    step = step_for(
        model, precision=precision, optimizer=optimizer, average=average, factors=torch.tensor([1.0, 0.5, 0.25])
    )
    make_update(step, *BATCH)
    weights, averaged, lr = model[1].weight.clone(), average.model[1].weight.clone(), float(step.lr)
    make_update(step, *POISON)
    assert torch.equal(model[1].weight, weights)
    assert torch.equal(average.model[1].weight, averaged)
    assert int(step.updates) == 1
    assert float(step.lr) == lr == pytest.approx(0.05)
    summary = step.log.summary()
    assert summary.skipped_steps == 1
    assert math.isfinite(summary.train_loss) and math.isfinite(summary.grad_norm_p95)
    step.log.start()
    make_update(step, *BATCH)
    assert int(step.updates) == 2
    assert not torch.equal(model[1].weight, weights)


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_momentum_starts_at_zero_where_the_first_update_is_skipped(precision: Precision) -> None:
    weights = []
    for skipped in (False, True):
        model = linear()
        step = step_for(model, precision=precision)
        lr = step.lr
        step.optimizer = build_optimizer(model, "sgd", lr, weight_decay=0.0, momentum=0.9)
        assert all(not step.optimizer.state[parameter]["momentum_buffer"].any() for parameter in model.parameters())
        if skipped:
            make_update(step, *POISON)
            step.log.start()
        make_update(step, *BATCH)
        make_update(step, *BATCH)
        weights.append(model[1].weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-5)


def test_an_overflow_halves_the_loss_scale_and_nothing_else_does() -> None:
    step = step_for(linear(), precision="fp16", scale=1024.0)
    make_update(step, *BATCH)
    assert step.scaler.get_scale() == 1024.0
    make_update(step, *POISON)
    assert step.scaler.get_scale() == 512.0


def test_clipping_acts_on_unscaled_gradients() -> None:
    """Clipping scaled ones would leave an update of max_norm / scale."""
    for precision in ("fp32", "fp16"):
        model = linear()
        before = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        make_update(step_for(model, precision=precision, clipping=Clipping("norm", 0.01), scale=1024.0), *BATCH)
        after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
        assert float((after - before).norm()) == pytest.approx(0.1 * 0.01, rel=1e-2)  # lr x max_norm


def test_the_norm_is_logged_before_clipping_and_the_clip_rate_counts_clipped_updates() -> None:
    model = linear()
    step = step_for(model, clipping=Clipping("norm", 1e-3))
    make_update(step, *BATCH)
    summary = step.log.summary()
    assert summary.grad_norm_p50 > 0.1
    assert summary.clip_rate == 1.0
    step = step_for(linear(), clipping=Clipping("norm", 1e3))
    make_update(step, *BATCH)
    assert step.log.summary().clip_rate == 0.0


def test_clipping_by_value_bounds_every_element() -> None:
    model = linear()
    before = model[1].weight.detach().clone()
    step = step_for(model, clipping=Clipping("value", 1e-3))
    make_update(step, *BATCH)
    moved = (model[1].weight.detach() - before).abs()
    assert float(moved.max()) == pytest.approx(0.1 * 1e-3, rel=1e-3)
    assert step.log.summary().clip_rate == 1.0


def test_agc_bounds_every_unit_but_the_classifiers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3))
    body, classifier = model[1], model[3]
    free = copy.deepcopy(model)
    before = body.weight.detach().clone()
    step = step_for(model, clipping=Clipping("agc", 1e-3))
    make_update(step, *BATCH)
    make_update(step_for(free), *BATCH)
    moved = (body.weight.detach() - before).norm(dim=1) / before.norm(dim=1)
    torch.testing.assert_close(moved, torch.full((5,), 0.1 * 1e-3), rtol=1e-3, atol=1e-9)
    assert torch.equal(classifier.weight, free[3].weight) and torch.equal(classifier.bias, free[3].bias)
    assert step.log.summary().clip_rate == 1.0


def test_only_one_kind_of_clipping_is_chosen() -> None:
    assert chosen_clipping("none") is None
    assert chosen_clipping(2.0) == Clipping("norm", 2.0)
    assert chosen_clipping("none", 0.5) == Clipping("value", 0.5)
    assert chosen_clipping("none", "none", 0.02) == Clipping("agc", 0.02)


def test_the_learning_rate_follows_applied_updates() -> None:
    factors = lr_factors("cosine", epochs=2, updates_per_epoch=2, warmup_epochs=1.0, step_epochs=1, step_factor=0.1)
    step = step_for(linear(), factors=factors)
    seen = [float(step.lr)]
    for _ in range(3):
        make_update(step, *BATCH)
        seen.append(float(step.lr))
    assert seen == pytest.approx([0.1 / 25, 0.1 * (1 / 25 + 24 / 50), 0.1, 0.05])


def test_parameters_without_decay_are_the_norms_and_biases() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    optimizer = build_optimizer(model, "adamw", torch.tensor(0.1), weight_decay=0.5)
    assert [(group["weight_decay"], len(group["params"])) for group in optimizer.param_groups] == [(0.5, 2), (0.0, 4)]
