"""MixUp and CutMix between neighbours.

The sample at an even place of the epoch's order is mixed with the one after it, and the other way round.

Whole-batch shuffles, as usual elsewhere, make a sample's partner depend on the micro-batch. Neighbours share every
micro-batch of even size, and both take the draws of the pair's first sample, so cutting a window into other
micro-batches changes no picture.

MixUp: https://arxiv.org/abs/1710.09412, CutMix: https://arxiv.org/abs/1905.04899; our `weight` is their lambda.

B: batch, C: channels, S: side of the square pictures, N: entries of a table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_cropshield.data import noise


@dataclass(frozen=True)
class Targets:
    """What a micro-batch should be classified as, and how much each sample counts.

    labels_B: int64. With MixUp or CutMix each sample is `share_B` of its own class and 1 - `share_B` of
    `partner_labels_B`. weights_B: fp32 weight of each sample's photograph, `partner_weights_B` of the one that is mixed
    into it; None where all count alike.
    """

    labels_B: Tensor
    partner_labels_B: Tensor | None = None
    share_B: Tensor | None = None
    weights_B: Tensor | None = None
    partner_weights_B: Tensor | None = None

    def slice(self, start: int, stop: int) -> Targets:
        """Returns the targets of samples `start` to `stop`."""
        rest = (self.partner_labels_B, self.share_B, self.weights_B, self.partner_weights_B)
        return Targets(
            self.labels_B[start:stop], *(None if values_B is None else values_B[start:stop] for values_B in rest)
        )

    def total(self, of: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the sum over the samples of `of(labels)`, fp32 (B,), times their weights; a 0-dim fp32 tensor.

        A mixed sample counts as its own label with `share_B` and as its partner's with the rest.
        """
        own_B = _weighted(of(self.labels_B), self.weights_B)
        if self.partner_labels_B is None or self.share_B is None:
            return own_B.sum()
        partner_B = _weighted(of(self.partner_labels_B), self.partner_weights_B)
        return (self.share_B * own_B + (1 - self.share_B) * partner_B).sum()


def _weighted(values_B: Tensor, weights_B: Tensor | None) -> Tensor:
    return values_B if weights_B is None else values_B * weights_B


# The pair's draws must not be those of its first sample's crop and colours. "mix" in ASCII.
SEED_OFFSET = 0x6D6978 << 40


@dataclass(frozen=True)
class Mixing:
    """How strongly neighbours are mixed: alphas of Beta(alpha, alpha), 0 turns one off.

    With both, each pair takes either at even odds.
    """

    mixup: float = 0.0
    cutmix: float = 0.0

    def plan(self, samples_B: Tensor, seed: int, epoch: int | Tensor, image_size: int) -> MixPlan:
        """Returns what happens to each of `samples_B` (int64, in the epoch's order from an even place on).

        Never waits for the device.

        The device's first plan copies a table there, so plan once before capturing a CUDA graph.
        """
        num_samples = len(samples_B)
        partners_B = _partners(num_samples, samples_B.device)
        places_B = torch.arange(num_samples, device=samples_B.device)
        lone_B = partners_B == places_B  # an odd last sample
        firsts_B = samples_B.index_select(0, torch.minimum(places_B, partners_B))
        which_B, strength_B, x_B, y_B = noise.uniform(seed + SEED_OFFSET, epoch, firsts_B, 4).unbind(1)

        blend_B = _looked_up(self.mixup, strength_B).masked_fill_(lone_B, 1.0)
        if not self.cutmix:
            return MixPlan(blend_B, blend_B, None, None)
        is_cutmix_B = which_B >= 0.5 if self.mixup else torch.ones_like(lone_B)
        half_B = 0.5 * (1 - _looked_up(self.cutmix, strength_B)).sqrt_() * (is_cutmix_B & ~lone_B)
        column_BS, row_BS = _inside(x_B, half_B, image_size), _inside(y_B, half_B, image_size)
        share_B = 1 - column_BS.sum(1) * row_BS.sum(1) / image_size**2
        return MixPlan(
            torch.where(is_cutmix_B, share_B, blend_B), blend_B.masked_fill(is_cutmix_B, 1.0), column_BS, row_BS
        )


@dataclass(frozen=True)
class MixPlan:
    """What happens to each sample of a window or micro-batch.

    Attributes:
        weight_B: float32 share of a sample's own class in its target; 1 for an odd last sample. For CutMix it is the
            share of pixels that stay, counted on the box as the picture's edge cuts it.
        blend_B: weight of a sample's own pixels outside the box (1 for CutMix); inside it, they are all the partner's.
        column_BS, row_BS: float32, 1 where the box lies; None without CutMix.
    """

    weight_B: Tensor
    blend_B: Tensor
    column_BS: Tensor | None
    row_BS: Tensor | None

    def slice(self, start: int, stop: int) -> MixPlan:
        """Returns the plan of samples `start` to `stop`, which must not part a pair."""
        assert start % 2 == 0 and (stop % 2 == 0 or stop >= len(self.weight_B)), (start, stop, len(self.weight_B))
        column_BS = None if self.column_BS is None else self.column_BS[start:stop]
        row_BS = None if self.row_BS is None else self.row_BS[start:stop]
        return MixPlan(self.weight_B[start:stop], self.blend_B[start:stop], column_BS, row_BS)

    def targets(self, labels_B: Tensor, weights_B: Tensor | None = None) -> Targets:
        """Returns weight * own class + (1 - weight) * partner's class for every sample.

        weights_B: fp32, of the samples' photographs; None where all count alike.
        """
        partners_B = _partners(len(labels_B), labels_B.device)
        partner_weights_B = None if weights_B is None else weights_B.index_select(0, partners_B)
        return Targets(labels_B, labels_B.index_select(0, partners_B), self.weight_B, weights_B, partner_weights_B)

    def images(self, images_BCSS: Tensor) -> Tensor:
        """Returns the mixed pictures, channels_last, same dtype (which the weights are rounded to).

        Never waits for the device.
        """
        num_samples, channels, height, width = images_BCSS.shape
        # Rows of (width x channels) numbers: the memory order of channels_last, and long enough for a CPU's vector
        # units.
        rows_BHR = images_BCSS.permute(0, 2, 3, 1).reshape(num_samples, height, width * channels)
        blend = self.blend_B[:, None, None]
        if self.column_BS is not None and self.row_BS is not None:
            column_BR = (self.blend_B[:, None] * self.column_BS).repeat_interleave(channels, dim=1)
            blend = torch.addcmul(blend, self.row_BS[:, :, None], column_BR[:, None], value=-1)
        partners_BHR = rows_BHR.index_select(0, _partners(num_samples, images_BCSS.device))
        mixed_BHR = torch.lerp(partners_BHR, rows_BHR, blend.to(images_BCSS.dtype))
        return mixed_BHR.view(num_samples, height, width, channels).permute(0, 3, 1, 2)


def mix(
    images_BCSS: Tensor, labels_B: Tensor, samples_B: Tensor, *, mixing: Mixing, seed: int, epoch: int | Tensor
) -> tuple[Tensor, Targets]:
    """Returns one batch's mixed pictures and their targets: `Mixing.plan` and its use in one call.

    Both alphas 0 change nothing.
    """
    if not (mixing.mixup or mixing.cutmix):
        return images_BCSS, Targets(labels_B)
    plan = mixing.plan(samples_B, seed, epoch, images_BCSS.shape[-1])
    return plan.images(images_BCSS), plan.targets(labels_B)


def beta_table(alpha: float, size: int = 4096, seed: int = 0) -> Tensor:
    """Returns (size,) float32 draws of Beta(alpha, alpha) in [0, 1], on the CPU; their mean is one half.

    `size` is even, `alpha` positive.

    A Beta draw takes a rejection loop, which a device cannot run without asking the host: so they are drawn once and
    looked up in a step. The second half mirrors the first (1 - x), for the distribution is symmetric.
    """
    if not alpha > 0:
        raise ValueError(f"`alpha > 0` must hold for a Beta distribution, but got {alpha}")
    assert size % 2 == 0, size
    half = np.random.default_rng(seed).beta(alpha, alpha, size // 2)
    return torch.from_numpy(np.concatenate((half, 1 - half))).to(torch.float32)


def _looked_up(alpha: float, draws_B: Tensor) -> Tensor:
    """Returns a Beta(alpha, alpha) number for each uniform draw; 1, all of a sample's own, for alpha 0."""
    if not alpha:
        return torch.ones_like(draws_B)
    table_N = _table_on(draws_B.device, alpha)
    return table_N.index_select(0, (draws_B * len(table_N)).to(torch.int64))


@functools.cache
def _table_on(device: torch.device, alpha: float) -> Tensor:
    return beta_table(alpha).to(device, non_blocking=True)


def _partners(num_samples: int, device: torch.device) -> Tensor:
    """Returns 1, 0, 3, 2, ...: each place's partner; an odd last place is its own."""
    return torch.arange(num_samples, device=device).bitwise_xor_(1).clamp_(max=num_samples - 1)


def _inside(centre_B: Tensor, half_B: Tensor, size: int) -> Tensor:
    """Returns (B, size) float32: 1 for pixels whose centre lies within `half` of `centre`, 0 for the rest.

    Both are shares of the side.
    """
    centres_S = torch.linspace(0.5 / size, 1 - 0.5 / size, size, device=centre_B.device)
    return ((centres_S - centre_B[:, None]).abs() < half_B[:, None]).to(torch.float32)
