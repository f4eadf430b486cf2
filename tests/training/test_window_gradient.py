"""The promise the loop stands on: a window's gradient is the full batch's, whatever it is split into."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tune_cropshield.data.targets import Targets
from tune_cropshield.training.clipping import chosen_clipping
from tune_cropshield.training.loss import loss_sum, target_weight
from tune_cropshield.training.optim import build_optimizer
from tune_cropshield.training.precision import gradient_scaler
from tune_cropshield.training.step import WindowStep
from tune_cropshield.training.update_log import UpdateLog

CLASSES = 5
CPU = torch.device("cpu")


def small_network() -> nn.Module:
    """Without batch norm, whose statistics do depend on the split; in float64, so that sums agree to rounding."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 6, CLASSES))


def window_step(model: nn.Module, smoothing: float, class_weights: Tensor | None) -> WindowStep:
    lr = torch.zeros(())
    return WindowStep(
        model,
        build_optimizer(model, "sgd", lr, weight_decay=0.0),
        gradient_scaler("fp32", CPU),
        lr=lr,
        peak_lr=0.0,
        lr_factors=torch.ones(1),
        clipping=chosen_clipping("none"),
        precision="fp32",
        class_weights_K=class_weights,
        label_smoothing=smoothing,
        average=None,
        log=UpdateLog(1, CPU),
    )


def gradients_of(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 40),
    micro_batch=st.integers(1, 17),
    smoothing=st.sampled_from([0.0, 0.1]),
    weighted=st.booleans(),
    mixed=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_windows_gradient_is_that_of_torchs_loss_on_the_whole_window(
    samples: int, micro_batch: int, smoothing: float, weighted: bool, mixed: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, 3, 8, 8, generator=generator)
    labels = torch.randint(CLASSES, (samples,), generator=generator)
    partners = torch.randint(CLASSES, (samples,), generator=generator)
    share = torch.rand(samples, generator=generator)
    class_weights = torch.rand(CLASSES, generator=generator) + 0.1 if weighted else None
    targets = Targets(labels, partners, share) if mixed else Targets(labels)

    model = small_network()
    step = window_step(model, smoothing, class_weights)
    weight = target_weight(targets, class_weights)
    for start in range(0, samples, micro_batch):
        stop = min(start + micro_batch, samples)
        step.micro_step(images[start:stop], targets.slice(start, stop), weight)
    split_gradient = gradients_of(model)

    model.zero_grad()
    own, partner = (
        nn.functional.cross_entropy(model(images), target, class_weights, reduction="none", label_smoothing=smoothing)
        for target in (labels, partners)
    )
    if mixed:
        weights = torch.ones(CLASSES) if class_weights is None else class_weights
        loss = (share * own + (1 - share) * partner).sum() / (share * weights[labels] + (1 - share) * weights[partners]).sum()
    else:
        loss = nn.functional.cross_entropy(model(images), labels, class_weights, label_smoothing=smoothing)
    loss.backward()
    torch.testing.assert_close(split_gradient, gradients_of(model), rtol=1e-4, atol=1e-6)


def test_dividing_each_micro_batchs_mean_by_the_accumulation_is_not_the_windows_gradient() -> None:
    """What the guide does; the check above would notice it."""
    torch.manual_seed(1)
    images, labels = torch.randn(20, 3, 8, 8), torch.randint(CLASSES, (20,))
    model = small_network()
    for start, stop in ((0, 8), (8, 16), (16, 20)):
        (nn.functional.cross_entropy(model(images[start:stop]), labels[start:stop]) / 3).backward()
    guides = gradients_of(model)
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    assert float((guides - gradients_of(model)).norm() / gradients_of(model).norm()) > 0.05


def test_the_sum_of_losses_over_the_weight_is_torchs_mean() -> None:
    torch.manual_seed(2)
    logits, labels, weights = torch.randn(7, CLASSES), torch.tensor([0, 1, 2, 3, 4, 0, 1]), torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
    for smoothing in (0.0, 0.1):
        for class_weights in (None, weights):
            ours = loss_sum(logits, Targets(labels), class_weights, smoothing) / target_weight(Targets(labels), class_weights)
            expected = nn.functional.cross_entropy(logits, labels, class_weights, label_smoothing=smoothing)
            torch.testing.assert_close(ours, expected)
