"""The losses beside cross-entropy, and the weights of classes, against figures from elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tune_cropshield.data.mixing import Targets
from tune_cropshield.training.losses import BiTempered, CrossEntropy, Focal, class_weights, tempered_log_softmax

# Those of the authors' own tests: https://github.com/google/bi-tempered-loss/blob/master/tensorflow/loss_test.py
LOGITS = torch.tensor([[-0.5, 0.1, 2.0], [0.1, 1.5, -5.0], [4.0, -3.0, -6.0]])
LABELS = torch.tensor([0, 1, 2])


def test_bi_tempered_gives_the_authors_figures() -> None:
    smoothed = BiTempered(None, 0.1, t1=0.5, t2=1.5).per_sample(LOGITS, LABELS)
    assert smoothed.tolist() == pytest.approx([0.76652711, 0.08627685, 1.35443510], abs=1e-5)


def test_the_tempered_softmax_gives_the_authors_figures() -> None:
    # Theirs sum to 1.00003, 1.0001 and 1.002, after 5 steps of another method: the third row is left out.
    probability = tempered_log_softmax(LOGITS[:2], 4.0).exp()
    assert probability[0].tolist() == pytest.approx([0.3205458, 0.32714278, 0.3523402], abs=1e-4)
    assert probability[1].tolist() == pytest.approx([0.3430056, 0.36491093, 0.29220778], abs=1e-4)


@pytest.mark.parametrize("classes", [2, 22, 1000])
@pytest.mark.parametrize("t", [1.0, 1.05, 1.2, 2.0, 4.0])
@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_tempered_probabilities_sum_to_one(classes: int, t: float, scale: float) -> None:
    logits = scale * torch.randn(64, classes, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(tempered_log_softmax(logits, t).exp().sum(dim=1), torch.ones(64), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("t1", "t2"), [(0.5, 1.0), (1.0, 1.5), (0.5, 1.5), (0.0, 4.0), (1.0, 1.0)])
def test_the_gradient_of_bi_tempered_is_the_papers(t1: float, t2: float) -> None:
    """Equation 9 of https://arxiv.org/abs/1906.03361, as the authors' code writes it."""
    logits = LOGITS.double().requires_grad_()
    (gradient,) = torch.autograd.grad(BiTempered(None, 0.0, t1, t2).per_sample(logits, LABELS).sum(), logits)
    p = tempered_log_softmax(logits.detach(), t2).exp()
    forgotten = (p - torch.eye(3)) * p ** (t2 - t1)
    escort = p**t2 / (p**t2).sum(dim=1, keepdim=True)
    torch.testing.assert_close(gradient, forgotten - escort * forgotten.sum(dim=1, keepdim=True))


def test_bi_tempered_without_temperatures_is_cross_entropy() -> None:
    ours = BiTempered(torch.tensor([1.0, 2.0, 0.5]), t1=1.0, t2=1.0).per_sample(LOGITS, LABELS)
    cross_entropy = nn.functional.cross_entropy(LOGITS, LABELS, torch.tensor([1.0, 2.0, 0.5]), reduction="none")
    torch.testing.assert_close(ours, cross_entropy)


def test_bi_tempered_is_bounded_however_wrong_a_label_is() -> None:
    losses = BiTempered(t1=0.5, t2=1.0).per_sample(torch.tensor([[0.0, 50.0], [0.0, 5000.0]]), torch.tensor([0, 0]))
    # p = 0: -log_t1(0) - 1 / (2 - t1) + 1 / (2 - t1), with log_t1(0) = -1 / (1 - t1)
    assert losses.tolist() == pytest.approx([2.0, 2.0], abs=1e-5)


def test_focal_weighs_what_is_right_less() -> None:
    logits = torch.tensor([[math.log(9.0), 0.0], [math.log(9.0), 0.0], [0.0, 0.0]])  # 0.9, 0.1 and 0.5 of class 0
    losses = Focal(gamma=2.0).per_sample(logits, torch.tensor([0, 1, 0]))
    expected = [0.01 * 0.1053605, 0.81 * 2.3025851, 0.25 * 0.6931472]
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    weighted = Focal(torch.tensor([2.0, 10.0]), gamma=2.0).per_sample(logits, torch.tensor([0, 1, 0]))
    assert weighted.tolist() == pytest.approx([2 * expected[0], 10 * expected[1], 2 * expected[2]], rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
def test_focal_without_its_exponent_is_cross_entropy(smoothing: float, weights: Tensor | None) -> None:
    focal = Focal(weights, smoothing, gamma=0.0).per_sample(LOGITS, LABELS)
    cross_entropy = nn.functional.cross_entropy(LOGITS, LABELS, weights, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(focal, cross_entropy)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize(
    ("loss", "options"),
    [(Focal, {"gamma": gamma}) for gamma in (0.0, 0.5, 1.0, 2.0, 10.0)]
    + [(BiTempered, {"t1": t1, "t2": t2}) for t1, t2 in ((0.0, 1.0), (0.8, 1.2), (1.0, 4.0), (1.0, 1.0))],
)
def test_losses_and_their_gradients_are_finite_for_the_surest_networks(
    loss: type[Focal | BiTempered], options: dict[str, float], smoothing: float
) -> None:
    logits = torch.tensor([[80.0, 0.0, -20.0], [0.0, 80.0, 0.0], [1e4, 0.0, -1e4], [0.0, 0.0, 0.0]]).requires_grad_()
    losses = loss(None, smoothing, **options).per_sample(logits, torch.zeros(4, dtype=torch.int64))
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert bool(torch.isfinite(losses).all()) and bool(torch.isfinite(gradient).all())


def test_class_weights_are_counted_from_the_labels() -> None:
    labels = torch.tensor([0] * 90 + [1] * 9 + [2])
    assert class_weights("none", labels, 3, 0.9) is None
    balanced = class_weights("balanced", labels, 3, 0.9)
    assert balanced is not None and balanced.tolist() == pytest.approx([100 / 270, 100 / 27, 100 / 3])
    # Effective numbers 9.99924, 6.12580 and 1.
    effective = class_weights("effective", labels, 3, 0.9)
    assert effective is not None and effective.tolist() == pytest.approx([0.23750, 0.38767, 2.37482], abs=1e-5)
    assert float(effective.sum()) == pytest.approx(3.0)
    equal = class_weights("effective", labels, 3, 0.0)
    assert equal is not None and equal.tolist() == pytest.approx([1.0, 1.0, 1.0])


def test_a_class_without_photographs_weighs_nothing() -> None:
    labels = torch.tensor([0, 0, 2])
    balanced, effective = (class_weights(kind, labels, 3, 0.9) for kind in ("balanced", "effective"))  # type: ignore[arg-type]
    assert balanced is not None and balanced.tolist() == pytest.approx([0.5, 0.0, 1.0])
    # Effective numbers 1.9 and 1; the weights sum to 3.
    assert effective is not None and effective.tolist() == pytest.approx([3 / 2.9, 0.0, 3 * 1.9 / 2.9])


def test_a_photographs_weight_multiplies_its_loss_and_counts_in_the_mean() -> None:
    plain = nn.functional.cross_entropy(LOGITS, LABELS, reduction="none")
    targets = Targets(LABELS, weights_B=torch.tensor([3.0, 0.5, 1.0]))
    loss = CrossEntropy()
    torch.testing.assert_close(loss.sum(LOGITS, targets), 3.0 * plain[0] + 0.5 * plain[1] + plain[2])
    assert float(loss.weight(targets)) == 4.5
    of_classes = CrossEntropy(torch.tensor([1.0, 2.0, 10.0]))
    torch.testing.assert_close(of_classes.sum(LOGITS, targets), 3.0 * plain[0] + 0.5 * 2.0 * plain[1] + 10.0 * plain[2])
    assert float(of_classes.weight(targets)) == 14.0


def test_mixed_photographs_bring_their_own_weights() -> None:
    mixed = Targets(
        torch.tensor([0]), torch.tensor([1]), torch.tensor([0.75]), torch.tensor([2.0]), torch.tensor([8.0])
    )
    logits = torch.tensor([[1.0, 0.0]])
    own, partner = (float(nn.functional.cross_entropy(logits, torch.tensor([label]))) for label in (0, 1))
    assert float(CrossEntropy().sum(logits, mixed)) == pytest.approx(0.75 * 2.0 * own + 0.25 * 8.0 * partner)
    assert float(CrossEntropy().weight(mixed)) == 0.75 * 2.0 + 0.25 * 8.0
