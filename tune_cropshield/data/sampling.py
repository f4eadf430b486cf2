"""Which photographs an epoch draws where every class is to be seen equally often.

N: training photographs, K: classes that have some.

Class-balanced sampling as in https://arxiv.org/abs/1910.09217, section 4.1, but that a class is gone through whole
before any of its photographs is drawn again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# The draws must not be those of the epoch's order. "draw" in ASCII.
SEED_OFFSET = 0x64726177


def balanced_draws(indices: Tensor, labels: Tensor, seed: int, epoch: int) -> Tensor:
    """Returns N of `indices`, N / K of each class, in no order that means anything; int64 on the CPU.

    Where K does not divide N, some classes are drawn once more than the others, other ones in each epoch. Of a large
    class it is a part, without repetition. Of a small one it is every photograph equally often, or once more. It is the
    same for the same (seed, epoch) on every machine.

    Args:
        indices: int64 on the CPU, the N samples to train on.
        labels: int64 on the CPU, their classes.
    """
    generator = np.random.default_rng([seed, epoch, SEED_OFFSET])
    own, of_class = indices.numpy(), labels.numpy()
    classes = np.unique(of_class)
    each, more = divmod(len(own), len(classes))
    draws = np.full(len(classes), each)
    draws[generator.permutation(len(classes))[:more]] += 1
    drawn = []
    for name, count in zip(classes, draws, strict=True):
        members = own[of_class == name]
        whole, part = divmod(int(count), len(members))
        drawn += [np.tile(members, whole), generator.choice(members, part, replace=False)]
    return torch.from_numpy(np.concatenate(drawn))


def times_before(order: Tensor) -> Tensor:
    """Returns how often each entry of `order` (int64, CPU) has stood before its place; int64."""
    values = order.numpy()
    by_value = np.argsort(values, kind="stable")
    in_order = values[by_value]
    times = np.empty(len(values), dtype=np.int64)
    times[by_value] = np.arange(len(values)) - np.searchsorted(in_order, in_order)
    return torch.from_numpy(times)
