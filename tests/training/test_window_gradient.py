"""The promise the loop stands on: a window's gradient is the full batch's, whatever it is split into."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.mixing import Targets
from tune_cropshield.data.windows import WindowSettings, training_windows
from tune_cropshield.training.clipping import chosen_clipping
from tune_cropshield.training.losses import BiTempered, CrossEntropy, Focal, SampleLoss, tempered_log_softmax
from tune_cropshield.training.optimizers import build_optimizer
from tune_cropshield.training.precision import gradient_scaler
from tune_cropshield.training.step import WindowStep
from tune_cropshield.training.update_log import UpdateLog

CLASSES = 5
CPU = torch.device("cpu")


def small_network() -> nn.Module:
    """Without batch norm, whose statistics do depend on the split."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 6, CLASSES))


def window_step(model: nn.Module, loss: SampleLoss) -> WindowStep:
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
        loss=loss,
        average=None,
        log=UpdateLog(1, CPU),
    )


def gradients_of(model: nn.Module) -> Tensor:
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def split_gradient_of(model: nn.Module, loss: SampleLoss, images: Tensor, targets: Targets, micro_batch: int) -> Tensor:
    """Returns the gradient of a window that is cut into micro-batches, the last one ragged."""
    step = window_step(model, loss)
    weight = step.loss.weight(targets)
    for start in range(0, len(images), micro_batch):
        stop = min(start + micro_batch, len(images))
        step.micro_step(images[start:stop], targets.slice(start, stop), weight)
    return gradients_of(model)


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 40),
    micro_batch=st.integers(1, 17),
    smoothing=st.sampled_from([0.0, 0.1]),
    weighted=st.booleans(),
    mixed=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_a_windows_gradient_is_that_of_the_mean_loss_over_the_whole_window(
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
    split_gradient = split_gradient_of(model, CrossEntropy(class_weights, smoothing), images, targets, micro_batch)

    model.zero_grad()
    # The mean that torch computes; for mixed targets, which torch does not weight, the mean by the same rule: weighted
    # losses over their weights.
    own, partner = (
        nn.functional.cross_entropy(model(images), target, class_weights, reduction="none", label_smoothing=smoothing)
        for target in (labels, partners)
    )
    if mixed:
        weights = torch.ones(CLASSES) if class_weights is None else class_weights
        loss = (share * own + (1 - share) * partner).sum() / (
            share * weights[labels] + (1 - share) * weights[partners]
        ).sum()
    else:
        loss = nn.functional.cross_entropy(model(images), labels, class_weights, label_smoothing=smoothing)
    loss.backward()
    torch.testing.assert_close(split_gradient, gradients_of(model), rtol=1e-4, atol=1e-6)


def plain_losses(name: str, logits: Tensor, labels: Tensor, class_weights: Tensor, smoothing: float) -> Tensor:
    """Returns each sample's loss times its class's weight, written down term by term from its target."""
    one_hot = nn.functional.one_hot(labels, CLASSES).float()
    if name == "bi_tempered":
        t1, t2 = 0.5, 1.5
        y = (1 - CLASSES / (CLASSES - 1) * smoothing) * one_hot + smoothing / (CLASSES - 1)
        p = tempered_log_softmax(logits, t2).exp()

        def log_t(u: Tensor) -> Tensor:
            return (u ** (1 - t1) - 1) / (1 - t1)

        terms = y * (log_t(y) - log_t(p)) - (y ** (2 - t1) - p ** (2 - t1)) / (2 - t1)
        return terms.sum(dim=1) * class_weights[labels]
    p = logits.softmax(dim=1)
    y = (1 - smoothing) * one_hot + smoothing / CLASSES
    factor = (1 - p) ** 1.5 if name == "focal" else 1.0
    return (-y * class_weights * factor * p.log()).sum(dim=1)


@settings(max_examples=90, deadline=None)
@given(
    name=st.sampled_from(["cross_entropy", "focal", "bi_tempered"]),
    samples=st.integers(1, 40),
    micro_batch=st.integers(1, 17),
    smoothing=st.sampled_from([0.0, 0.1]),
    weighted=st.booleans(),
    mixed=st.booleans(),
    own_weights=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_every_losss_window_is_exact_with_weights_of_classes_and_of_photographs(
    name: str,
    samples: int,
    micro_batch: int,
    smoothing: float,
    weighted: bool,
    mixed: bool,
    own_weights: bool,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(samples, 3, 8, 8, generator=generator)
    labels, partners = (torch.randint(CLASSES, (samples,), generator=generator) for _ in range(2))
    share = torch.rand(samples, generator=generator)
    class_weights = torch.rand(CLASSES, generator=generator) + 0.1 if weighted else None
    of_own, of_partners = (torch.rand(samples, generator=generator) + 0.1 for _ in range(2))
    targets = Targets(
        labels,
        *((partners, share) if mixed else (None, None)),
        *((of_own, of_partners if mixed else None) if own_weights else (None, None)),
    )
    loss: SampleLoss = {
        "cross_entropy": lambda: CrossEntropy(class_weights, smoothing),
        "focal": lambda: Focal(class_weights, smoothing, gamma=1.5),
        "bi_tempered": lambda: BiTempered(class_weights, smoothing, t1=0.5, t2=1.5),
    }[name]()
    model = small_network()
    split_gradient = split_gradient_of(model, loss, images, targets, micro_batch)

    model.zero_grad()
    weights = torch.ones(CLASSES) if class_weights is None else class_weights
    summed, weight = torch.zeros(()), torch.zeros(())
    for target, part, photographs in (
        (labels, share if mixed else torch.ones(samples), of_own),
        (partners, 1 - share if mixed else torch.zeros(samples), of_partners),
    ):
        counted = part * photographs if own_weights else part
        summed = summed + (counted * plain_losses(name, model(images), target, weights, smoothing)).sum()
        weight = weight + (counted * weights[target]).sum()
    (summed / weight).backward()
    torch.testing.assert_close(split_gradient, gradients_of(model), rtol=1e-3, atol=1e-6)


def test_a_photograph_of_weight_two_trains_as_two_of_it() -> None:
    pictures = torch.randint(256, (6, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
    labels, counts = torch.arange(6) % CLASSES, torch.tensor([2, 1, 1, 3, 1, 1])
    cut = WindowSettings(16, 4, "none", None, seed=0)
    gradients = []
    for indices, weights in ((torch.arange(6), counts.float()), (torch.arange(6).repeat_interleave(counts), None)):
        model = small_network()
        step = window_step(model, CrossEntropy())
        for window in training_windows(ImageFeed(pictures, CPU), labels, indices, cut, 0, 8, weights_N=weights):
            weight = step.loss.weight(window.targets)
            assert float(weight) == 9.0
            for batch in window.micro_batches:
                step.micro_step(batch.images(), batch.targets, weight)
        gradients.append(gradients_of(model))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


def test_dividing_each_micro_batchs_mean_by_the_accumulation_is_not_the_windows_gradient() -> None:
    """What the guide does: off by far more than the tolerance above."""
    torch.manual_seed(1)
    images, labels = torch.randn(20, 3, 8, 8), torch.randint(CLASSES, (20,))
    model = small_network()
    for start, stop in ((0, 8), (8, 16), (16, 20)):
        (nn.functional.cross_entropy(model(images[start:stop]), labels[start:stop]) / 3).backward()
    guides = gradients_of(model)
    model.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    assert float((guides - gradients_of(model)).norm() / gradients_of(model).norm()) > 0.05


def test_a_weight_of_the_micro_batch_in_the_windows_place_is_noticed() -> None:
    torch.manual_seed(1)
    images, targets = torch.randn(20, 3, 8, 8), Targets(torch.randint(CLASSES, (20,)))
    gradients = []
    for of_window in (True, False):
        model = small_network()
        step = window_step(model, CrossEntropy())
        for start, stop in ((0, 8), (8, 16), (16, 20)):
            part = targets.slice(start, stop)
            step.micro_step(images[start:stop], part, step.loss.weight(targets if of_window else part))
        gradients.append(gradients_of(model))
    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(images=st.integers(2, 40), effective_batch=st.integers(1, 24), micro_batch=st.integers(1, 17))
def test_every_window_of_an_epoch_is_trained_to_the_gradient_of_its_own_samples(
    images: int, effective_batch: int, micro_batch: int
) -> None:
    """The whole path of a trial: feed, windows, micro-batches, `train_window`; the gradient is read off the weights, by
    plain SGD of rate 1, from the same weights for every window.
    """
    pictures = torch.randint(256, (images, 8, 8, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(images))
    labels = torch.arange(images) % CLASSES
    cut = WindowSettings(effective_batch, min(micro_batch, effective_batch), "none", None, seed=0)
    whole = WindowSettings(effective_batch, effective_batch, "none", None, seed=0)

    def gradients_of_windows(cut: WindowSettings) -> list[Tensor]:
        model = small_network()
        step = window_step(model, CrossEntropy())
        step.peak_lr = 1.0
        step.set_lr()
        start = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone()
        gradients = []
        for window in training_windows(
            ImageFeed(pictures, CPU), labels, torch.arange(images), cut, epoch=0, image_size=8
        ):
            step.log.start()
            step.train_window(window)
            gradients.append(start - torch.nn.utils.parameters_to_vector(model.parameters()).detach())
            torch.nn.utils.vector_to_parameters(start.clone(), model.parameters())
        return gradients

    split, at_once = gradients_of_windows(cut), gradients_of_windows(whole)
    joins = effective_batch == 2 and images % 2 == 1 and images > 1  # a single image at the end joins the last two
    assert len(split) == math.ceil(images / effective_batch) - joins
    torch.testing.assert_close(split, at_once, rtol=1e-3, atol=1e-6)


def test_the_sum_of_losses_over_the_weight_is_torchs_mean() -> None:
    torch.manual_seed(2)
    logits, labels, weights = (
        torch.randn(7, CLASSES),
        torch.tensor([0, 1, 2, 3, 4, 0, 1]),
        torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5]),
    )
    for smoothing in (0.0, 0.1):
        for class_weights in (None, weights):
            loss = CrossEntropy(class_weights, smoothing)
            ours = loss.sum(logits, Targets(labels)) / loss.weight(Targets(labels))
            expected = nn.functional.cross_entropy(logits, labels, class_weights, label_smoothing=smoothing)
            torch.testing.assert_close(ours, expected)
