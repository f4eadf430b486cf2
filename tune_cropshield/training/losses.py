"""Losses as a sum over samples, and the weight that turns the sum of a whole window into a mean.

B: samples of a micro-batch, K: classes. A window is one optimizer update; its loss is (sum of the samples' losses) /
(sum of their weights), both over the whole window. That is what torch.nn.CrossEntropyLoss computes on the whole window
at once, whatever it is split into.

A loss of your own is a class made from `SampleLoss` with a `per_sample`; its name goes into `loss` of a settings file
as file.py:Name.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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
        """Returns the sum over the micro-batch, a 0-dim fp32 tensor.

        A mixed target's loss is the mix of the two losses: for cross-entropy, which is linear in its target, that is
        its own.
        """
        logits_BK = logits_BK.float()
        own_B = self.per_sample(logits_BK, targets.labels_B)
        if own_B.shape != targets.labels_B.shape:
            shapes = f"{tuple(own_B.shape)} for labels {tuple(targets.labels_B.shape)}"
            raise ValueError(f"{type(self).__name__}.per_sample must return a loss for each sample, but gave {shapes}")
        if targets.partner_labels_B is None or targets.share_B is None:
            return own_B.sum()
        partner_B = self.per_sample(logits_BK, targets.partner_labels_B)
        return (targets.share_B * own_B + (1 - targets.share_B) * partner_B).sum()

    def weight(self, targets: Targets) -> Tensor:
        """Returns the sum of the samples' weights, a 0-dim fp32 tensor: their number without class weights."""
        if self.class_weights_K is None:
            return torch.full((), float(targets.labels_B.shape[0]), device=targets.labels_B.device)
        own_B = self.class_weights_K[targets.labels_B]
        if targets.partner_labels_B is None or targets.share_B is None:
            return own_B.sum()
        partner_B = self.class_weights_K[targets.partner_labels_B]
        return (targets.share_B * own_B + (1 - targets.share_B) * partner_B).sum()


class CrossEntropy(SampleLoss):
    """torch.nn.functional.cross_entropy with class weights and label smoothing."""

    def per_sample(self, logits_BK: Tensor, labels_B: Tensor) -> Tensor:
        return self._of(logits_BK, labels_B, "none")

    def sum(self, logits_BK: Tensor, targets: Targets) -> Tensor:
        if targets.partner_labels_B is None:
            return self._of(logits_BK.float(), targets.labels_B, "sum")  # one kernel
        return super().sum(logits_BK, targets)

    def _of(self, logits_BK: Tensor, labels_B: Tensor, reduction: str) -> Tensor:
        return F.cross_entropy(
            logits_BK, labels_B, self.class_weights_K, reduction=reduction, label_smoothing=self.label_smoothing
        )


def balanced_class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Returns N / (K * count of the class) for each class, fp32 (K,); a class without samples gets 0."""
    counts_K = torch.bincount(labels, minlength=num_classes)
    return torch.where(counts_K > 0, labels.numel() / (num_classes * counts_K.clamp(min=1)), 0.0).float()
