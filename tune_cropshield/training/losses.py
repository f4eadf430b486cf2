"""Losses as a sum over samples, and the weight that turns the sum of a whole window into a mean.

B: samples of a micro-batch, K: classes. A window is one optimizer update; its loss is (sum of the samples' losses) /
(sum of their weights), both over the whole window. That is what torch.nn.CrossEntropyLoss computes on the whole window
at once, whatever it is split into.

A loss of your own is a class made from `SampleLoss` with a `per_sample`; its name goes into `loss` of a settings file
as file.py:Name.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tune_cropshield.config.settings import ClassWeights
from tune_cropshield.data.mixing import Targets


class SampleLoss:
    """A loss that is known for each sample by itself.

    Args:
        class_weights_K: fp32 weight of each class, (K,) on the device; None for equal ones.
        label_smoothing: share of each target that is spread evenly over all classes.
    """

    def __init__(self, class_weights_K: Tensor | None = None, label_smoothing: float = 0.0) -> None:
        self.class_weights_K, self.label_smoothing = class_weights_K, label_smoothing

    def per_sample(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Returns each sample's loss, fp32 (B,), times the weight of its class.

        Args:
            logits_BK: fp32, as the network gives them.
            labels_B: int64 class numbers.
        """
        raise NotImplementedError

    def sum(self, logits_BK: Tensor, targets: Targets) -> Tensor:
        """Returns the sum over the micro-batch, each sample times its photograph's weight, a 0-dim fp32 tensor.

        A mixed target's loss is the mix of the two losses: for a loss that is linear in its target, as ours are but for
        a constant, that is its own.
        """
        logits_BK = logits_BK.float()
        return targets.total(lambda labels_B: self._losses(logits_BK, labels_B))

    def _losses(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Returns `per_sample`; raises ValueError where that is not one loss for each sample."""
        losses_B = self.per_sample(logits_BK, labels_B)
        if losses_B.shape != labels_B.shape:
            shapes = f"{tuple(losses_B.shape)} for labels {tuple(labels_B.shape)}"
            raise ValueError(f"{type(self).__name__}.per_sample must return a loss for each sample, but gave {shapes}")
        return losses_B

    def weight(self, targets: Targets) -> Tensor:
        """Returns the sum of the samples' weights, a 0-dim fp32 tensor: their number where all count alike.

        A sample's weight is its photograph's times its class's.
        """
        weights_K = self.class_weights_K
        if weights_K is not None:
            return targets.total(lambda labels_B: weights_K[labels_B])
        if targets.weights_B is not None:
            return targets.total(lambda labels_B: torch.ones_like(labels_B, dtype=torch.float32))
        return torch.full((), float(targets.labels_B.shape[0]), device=targets.labels_B.device)

    def weighted(self, losses_B: Tensor, labels_B: Tensor) -> Tensor:
        """Returns losses, (B,), times the weights of the samples' classes."""
        return losses_B if self.class_weights_K is None else losses_B * self.class_weights_K[labels_B]


class CrossEntropy(SampleLoss):
    """torch.nn.functional.cross_entropy with class weights and label smoothing."""

    def per_sample(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        return self._of(logits_BK, labels_B, "none")

    def sum(self, logits_BK: Tensor, targets: Targets) -> Tensor:
        if targets.partner_labels_B is None and targets.weights_B is None:
            return self._of(logits_BK.float(), targets.labels_B, "sum")  # one kernel
        return super().sum(logits_BK, targets)

    def _of(self, logits_BK: Tensor, labels_B: Tensor, reduction: str) -> Tensor:
        return F.cross_entropy(
            logits_BK, labels_B, self.class_weights_K, reduction=reduction, label_smoothing=self.label_smoothing
        )


class Focal(SampleLoss):
    """Focal loss: cross-entropy whose terms count (1 - p) ** gamma, p the probability of the term's class.

    With label smoothing, and with the class weights of its terms, it is to the letter what cross_entropy is for gamma
    0. Source: https://arxiv.org/abs/1708.02002, whose alpha is the class weights.
    """

    def __init__(self, class_weights_K: Tensor | None = None, label_smoothing: float = 0.0, gamma: float = 2.0) -> None:
        super().__init__(class_weights_K, label_smoothing)
        self.gamma = gamma

    def per_sample(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        log_p_BK = F.log_softmax(logits_BK, dim=1)
        # A p of 1 would have no derivative where gamma is below 1.
        rest_BK = (-torch.expm1(log_p_BK)).clamp(min=torch.finfo(torch.float32).eps)
        terms_BK = -(rest_BK**self.gamma) * log_p_BK
        if self.class_weights_K is not None:
            terms_BK = terms_BK * self.class_weights_K
        own_B = terms_BK.gather(1, labels_B[:, None])[:, 0]
        return (1 - self.label_smoothing) * own_B + self.label_smoothing * terms_BK.mean(dim=1)


class BiTempered(SampleLoss):
    """Bi-tempered logistic loss: robust against wrong labels.

    With t1 = t2 = 1 and no label smoothing it is cross-entropy. Label smoothing s gives 1 - s to the labelled class and
    s / (K - 1) to each other one, as the authors' code has it.

    Source: https://arxiv.org/abs/1906.03361, section 2, and https://github.com/google/bi-tempered-loss.
    """

    def __init__(
        self, class_weights_K: Tensor | None = None, label_smoothing: float = 0.0, t1: float = 0.8, t2: float = 1.2
    ) -> None:
        super().__init__(class_weights_K, label_smoothing)
        self.t1, self.t2 = t1, t2

    def per_sample(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        """Returns sum over k of y log_t1(y) - y log_t1(p) - y^(2-t1) / (2-t1) + p^(2-t1) / (2-t1)."""
        num_classes, power = logits_BK.shape[1], 2 - self.t1
        target, other = 1 - self.label_smoothing, self.label_smoothing / (num_classes - 1)
        of_target = sum(
            count * (share * _log_t_of_number(share, self.t1) - share**power / power)
            for share, count in ((target, 1), (other, num_classes - 1))
        )
        log_p_BK = tempered_log_softmax(logits_BK, self.t2)
        log_t_BK = log_p_BK if self.t1 == 1 else torch.expm1((1 - self.t1) * log_p_BK) / (1 - self.t1)
        own_B = log_t_BK.gather(1, labels_B[:, None])[:, 0]
        crossed_B = (target - other) * own_B + other * log_t_BK.sum(dim=1)
        losses_B = of_target - crossed_B + torch.exp(power * log_p_BK).sum(dim=1) / power
        return self.weighted(losses_B, labels_B)


NEWTON_STEPS = 10  # enough for fp32's last digits with 2 to 1,000 classes and t up to 4


def tempered_log_softmax(logits_BK: Tensor, t: float) -> Tensor:
    """Returns the logarithm of the probabilities exp_t(logits - normalizer), fp32 (B, K); each row's sum is 1.

    exp_t(u) = (1 + (1 - t) u) ^ (1 / (1 - t)), here for t of 1 or more; t = 1 is the softmax. Never waits for the
    device.

    The normalizer is found by Newton's method: the sum of probabilities falls and is convex in it, so that every step
    stays below the root. It begins at the larger of two bounds from below, the largest logit and what the logits' mean
    gives by Jensen's inequality. Its gradient is known: the escort distribution, p^t / sum of p^t.
    """
    if t == 1:
        return F.log_softmax(logits_BK, dim=1)
    fixed_BK = logits_BK.detach()
    if_equal = (logits_BK.shape[1] ** (t - 1) - 1) / (t - 1)
    normalizer_B1 = torch.maximum(fixed_BK.amax(dim=1, keepdim=True), fixed_BK.mean(dim=1, keepdim=True) + if_equal)
    for _ in range(NEWTON_STEPS):
        log_p_BK = _log_exp_t(fixed_BK - normalizer_B1, t)
        excess_B1 = torch.exp(log_p_BK).sum(dim=1, keepdim=True) - 1
        normalizer_B1 = normalizer_B1 + excess_B1 / torch.exp(t * log_p_BK).sum(dim=1, keepdim=True)
    escort_BK = F.softmax(t * _log_exp_t(fixed_BK - normalizer_B1, t), dim=1)
    normalizer_B1 = normalizer_B1 + (escort_BK * (logits_BK - fixed_BK)).sum(dim=1, keepdim=True)
    return _log_exp_t(logits_BK - normalizer_B1, t)


def _log_exp_t(values: Tensor, t: float) -> Tensor:
    """Returns log(exp_t(values)) for values up to 0 and t above 1."""
    return -torch.log1p((1 - t) * values) / (t - 1)


def _log_t_of_number(share: float, t: float) -> float:
    """Returns log_t(share), and 0 for a share of 0, whose product with its logarithm is 0."""
    if share == 0:
        return 0.0
    return math.log(share) if t == 1 else (share ** (1 - t) - 1) / (1 - t)


def class_weights(kind: ClassWeights, labels: Tensor, num_classes: int, beta: float) -> Tensor | None:
    """Returns the weight of each class, fp32 (K,); None for "none". A class without samples gets 0.

    "balanced" is N / (K * count of the class). "effective" is 1 / (the class's effective number of samples), the
    weights' sum K: https://arxiv.org/abs/1901.05555, equation 2, `beta` as there.

    Args:
        labels: int64, of the samples that are trained on.
    """
    if kind == "none":
        return None
    counts_K = torch.bincount(labels, minlength=num_classes).double()
    if kind == "balanced":
        return torch.where(counts_K > 0, labels.numel() / (num_classes * counts_K), 0.0).float()
    weights_K = torch.where(counts_K > 0, (1 - beta) / (1 - beta**counts_K), 0.0)
    return (weights_K * num_classes / weights_K.sum()).float()
