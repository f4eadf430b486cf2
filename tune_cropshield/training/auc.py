"""The area under the ROC curve, of many classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def one_vs_rest_auc(scores_NK: Tensor, labels_N: Tensor) -> Tensor:
    """Returns the area under the ROC curve of each class against all others, in the mean over the classes.

    That is the chance that a photograph of the class has a higher score for it than one of another class; equal scores
    count half. A class without photographs is left out, and so is one that has all of them; NaN where no class is left,
    or a score is NaN. It equals scikit-learn's `roc_auc_score(multi_class="ovr", average="macro")`.

    It is computed on the device, class by class, without waiting for it: the sum of ranks of Mann and Whitney.

    Args:
        scores_NK: of each photograph and class, on any scale that rises with the probability.
        labels_N: int64.

    Returns:
        A float64 scalar on the device.
    """
    of_classes = []
    for label, scores_N in enumerate(scores_NK.T.contiguous()):
        ordered_N = scores_N.sort().values
        below_N = torch.searchsorted(ordered_N, scores_N, right=False)
        not_above_N = torch.searchsorted(ordered_N, scores_N, right=True)
        own_N = (labels_N == label).double()
        count, others = own_N.sum(), len(labels_N) - own_N.sum()
        rank_sum = (own_N * (below_N + not_above_N + 1) / 2).sum()  # ranks count from 1
        of_classes.append((rank_sum - count * (count + 1) / 2) / (count * others))  # 0 / 0 is NaN
    mean = torch.stack(of_classes).nanmean()
    return torch.where(scores_NK.isnan().any(), math.nan, mean)
