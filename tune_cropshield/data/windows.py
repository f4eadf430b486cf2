"""An epoch's images in windows (one optimizer update each) and micro-batches (one forward and backward pass each).

A micro-batch holds stored pictures and what to make of them; its `images()` makes it, on the device, wherever it is
called: within a CUDA graph too.

B: samples of a micro-batch, W: samples of a window, N: samples of the data set, S: side of the stored pictures.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tune_cropshield.config.settings import Sampling
from tune_cropshield.data.augment import PRESETS, augment
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.mixing import Mixing, MixPlan, Targets
from tune_cropshield.data.preparation import IMAGENET, Normalisation, Preparation
from tune_cropshield.data.sampling import balanced_draws, times_before


class View(NamedTuple):
    """How stored pictures become images: the same for all micro-batches of an epoch."""

    preset: str
    image_size: int
    seed: int
    dtype: torch.dtype
    normalisation: Normalisation = IMAGENET


@dataclass(frozen=True)
class MicroBatch:
    """The samples of one forward and backward pass.

    Stored pictures, uint8 (B, S, S, 3), and all that their images and targets depend on.
    """

    pictures_BHWC: Tensor
    samples_B: Tensor  # int64: what augmentation and mixing are drawn by; see `training_windows`
    epoch: Tensor  # 0-dim int64
    targets: Targets
    plan: MixPlan | None
    view: View

    def images(self) -> Tensor:
        """Returns the images, (B, 3, image_size, image_size), augmented and mixed."""
        images_BCHW = augment(
            self.pictures_BHWC,
            self.samples_B,
            preset=PRESETS[self.view.preset],
            out_size=self.view.image_size,
            seed=self.view.seed,
            epoch=self.epoch,
            dtype=self.view.dtype,
            normalisation=self.view.normalisation,
        )
        return images_BCHW if self.plan is None else self.plan.images(images_BCHW)


IGNORE_INDEX = -100  # the label of a picture that only fills a batch: losses and counts pass over it


@dataclass(frozen=True)
class EvaluationBatch:
    """Stored pictures, uint8 (B, S, S, 3), that are evaluated whole and unchanged, and their labels (B,).

    A label of IGNORE_INDEX does not count.
    """

    pictures_BHWC: Tensor
    labels_B: Tensor
    image_size: int
    dtype: torch.dtype
    normalisation: Normalisation = IMAGENET

    def images(self) -> Tensor:
        """Returns the images, (B, 3, image_size, image_size)."""
        return Preparation(self.image_size, normalisation=self.normalisation).images(self.pictures_BHWC, self.dtype)


@dataclass(frozen=True)
class Window:
    """One update's samples. `micro_batches` can be walked once."""

    targets: Targets
    num_samples: int
    micro_batches: Generator[MicroBatch]


def epoch_order(indices: Tensor, seed: int, epoch: int) -> Tensor:
    """Returns `indices` (int64, CPU) in the random order of one epoch.

    It is the same for the same (seed, epoch) on every machine.
    """
    return indices[torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(indices)))]


@dataclass(frozen=True)
class WindowSettings:
    """How an epoch is cut up and what is done to its images."""

    effective_batch: int
    micro_batch: int
    preset: str
    mixing: Mixing | None
    seed: int
    dtype: torch.dtype = torch.float32
    normalisation: Normalisation = IMAGENET
    sampling: Sampling = "plain"


def training_windows(
    feed: ImageFeed,
    labels_N: Tensor,
    indices: Tensor,
    settings: WindowSettings,
    epoch: int,
    image_size: int,
    first_window: int = 0,
    weights_N: Tensor | None = None,
) -> Generator[Window]:
    """Yields one epoch's windows: every sample of `indices` once, the last window ragged where they do not divide.

    With "balanced" sampling the epoch has as many samples, drawn as `balanced_draws` says. One that is drawn again is
    augmented and mixed in another way.

    A last window or micro-batch of a single sample takes some from the one before it, or joins it where that has only
    two. Which sample comes when, and what
    augmentation and mixing do to it, depends on (seed, epoch, sample) alone: not on micro_batch, nor on the device.

    Args:
        labels_N: the whole store's labels, on the device.
        indices: int64 on the CPU, the samples to train on.
        first_window: the number (from 0) of the first window that is yielded.
        weights_N: the whole store's weights, on the device; None where all photographs count alike.
    """
    if settings.sampling == "balanced":
        drawn = balanced_draws(indices, labels_N.cpu()[indices], settings.seed, epoch)
        order = epoch_order(drawn, settings.seed, epoch)
        samples = order + len(labels_N) * times_before(order)
    else:
        order = samples = epoch_order(indices, settings.seed, epoch)
    order_on_device = order.to(feed.device, non_blocking=True)
    samples_on_device = samples.to(feed.device, non_blocking=True)
    epoch_number = torch.full((), epoch, dtype=torch.int64, device=feed.device)
    view = View(settings.preset, image_size, settings.seed, settings.dtype, settings.normalisation)
    windows = _cut(0, len(order), settings.effective_batch)[first_window:]
    spans = [_cut(start, stop, settings.micro_batch) for start, stop in windows]
    with closing(
        feed.stream([order[first:last] for window_spans in spans for first, last in window_spans])
    ) as pictures:
        for (start, stop), window_spans in zip(windows, spans, strict=True):
            pictures_W, samples_W = order_on_device[start:stop], samples_on_device[start:stop]
            plan = (
                settings.mixing.plan(samples_W, settings.seed, epoch, image_size)
                if settings.mixing is not None
                else None
            )
            labels_W = labels_N[pictures_W]
            weights_W = None if weights_N is None else weights_N[pictures_W]
            targets = Targets(labels_W, weights_B=weights_W) if plan is None else plan.targets(labels_W, weights_W)
            whole = WindowParts(samples_W, epoch_number, targets, plan, view)
            yield Window(
                targets,
                stop - start,
                _micro_batches(pictures, whole, [(first - start, last - start) for first, last in window_spans]),
            )


def num_windows(samples: int, effective_batch: int) -> int:
    """Returns how many windows an epoch of so many samples has."""
    return len(_cut(0, samples, effective_batch))


def _cut(start: int, stop: int, size: int) -> list[tuple[int, int]]:
    """Returns the parts of `size` samples between `start` and `stop`, the last one ragged.

    A single sample is too few for batch norm. So a last part of one takes two from the part before it, an even number,
    so that neighbours who are mixed stay together. Where that has three it gives one (sizes are even where neighbours
    are mixed), and where it has two the last part joins it.
    """
    parts = [(at, min(at + size, stop)) for at in range(start, stop, size)]
    if size == 1 or len(parts) == 1 or parts[-1][1] - parts[-1][0] > 1:
        return parts
    before, end = parts[-2][0], parts[-1][1]
    middle = end - (2 if size == 3 else 3)
    parts[-2:] = [(before, middle), (middle, end)] if middle > before else [(before, end)]
    return parts


class WindowParts(NamedTuple):
    """What a window's micro-batches are cut from, beside the pictures."""

    samples_W: Tensor
    epoch: Tensor
    targets: Targets
    plan: MixPlan | None
    view: View


def _micro_batches(
    pictures: Iterator[Tensor], whole: WindowParts, spans: list[tuple[int, int]]
) -> Generator[MicroBatch]:
    """Yields a window's micro-batches: `spans` are the samples of each, counted from the window's start."""
    for first, last in spans:
        plan = whole.plan.slice(first, last) if whole.plan is not None else None
        yield MicroBatch(
            next(pictures), whole.samples_W[first:last], whole.epoch, whole.targets.slice(first, last), plan, whole.view
        )


def evaluation_batches(
    feed: ImageFeed,
    labels_N: Tensor,
    indices: Tensor,
    batch: int,
    image_size: int,
    dtype: torch.dtype = torch.float32,
    normalisation: Normalisation = IMAGENET,
) -> Iterator[EvaluationBatch]:
    """Yields `indices` (int64, CPU) in their order, `batch` at a time.

    On a GPU the last batch is filled up: to prepare a network's kernels for another batch size takes longer than to run
    them.
    """
    parts = list(indices.split(batch))
    missing = (batch - len(parts[-1])) if parts and len(parts) > 1 and feed.device.type == "cuda" else 0
    if missing:
        parts[-1] = torch.cat((parts[-1], indices[:missing]))
    with closing(feed.stream(parts)) as pictures:
        for number, (part, pictures_BHWC) in enumerate(zip(parts, pictures, strict=True), 1):
            labels_B = labels_N[part.to(feed.device, non_blocking=True)]
            if missing and number == len(parts):
                labels_B[-missing:] = IGNORE_INDEX
            yield EvaluationBatch(pictures_BHWC, labels_B, image_size, dtype, normalisation)
