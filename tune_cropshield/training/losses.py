"""Cross-entropy as a sum, and the weight that turns the sum of a whole window into a mean.

B: samples of a micro-batch, K: classes. A window is one optimizer update; its loss is (sum of the samples' losses) /
(sum of their weights), both over the whole window. That is what torch.nn.CrossEntropyLoss computes on the whole window
at once, whatever it is split into.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tune_cropshield.data.mixing import Targets


def loss_sum(logits_BK: Tensor, targets: Targets, class_weights_K: Tensor | None, label_smoothing: float) -> Tensor:
    """Returns the sum over the micro-batch of each sample's weighted cross-entropy, a 0-dim fp32 tensor.

    Cross-entropy is linear in its target, so a mixed target's loss is the mix of the two losses.
    """
    logits_BK = logits_BK.float()
    if targets.partner_labels_B is None or targets.share_B is None:
        return F.cross_entropy(
            logits_BK, targets.labels_B, class_weights_K, reduction="sum", label_smoothing=label_smoothing
        )
    own_B, partner_B = (
        F.cross_entropy(logits_BK, labels_B, class_weights_K, reduction="none", label_smoothing=label_smoothing)
        for labels_B in (targets.labels_B, targets.partner_labels_B)
    )
    return (targets.share_B * own_B + (1 - targets.share_B) * partner_B).sum()


def target_weight(targets: Targets, class_weights_K: Tensor | None) -> Tensor:
    """Returns the sum of the samples' weights, a 0-dim fp32 tensor: their number without class weights, else the
    weights of their classes.
    """
    if class_weights_K is None:
        return torch.full((), float(targets.labels_B.shape[0]), device=targets.labels_B.device)
    own_B = class_weights_K[targets.labels_B]
    if targets.partner_labels_B is None or targets.share_B is None:
        return own_B.sum()
    return (targets.share_B * own_B + (1 - targets.share_B) * class_weights_K[targets.partner_labels_B]).sum()


def balanced_class_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Returns N / (K * count of the class) for each class, fp32 (K,); a class without samples gets 0."""
    counts_K = torch.bincount(labels, minlength=num_classes)
    return torch.where(counts_K > 0, labels.numel() / (num_classes * counts_K.clamp(min=1)), 0.0).float()
