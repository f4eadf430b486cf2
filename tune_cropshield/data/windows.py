"""An epoch's images in windows (one optimizer update each) and micro-batches (one forward and backward pass each).

B: samples of a micro-batch, W: samples of a window, N: samples of the data set, S: side of the stored pictures.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tune_cropshield.data.augment import PRESETS, augment, evaluation_view
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.mixing import Mixing, MixPlan
from tune_cropshield.data.targets import Targets


@dataclass(frozen=True)
class Window:
    """One update's samples. `micro_batches` can be walked once; each item is (images (B, 3, H, W) on the device, their targets)."""

    targets: Targets
    num_samples: int
    micro_batches: Generator[tuple[Tensor, Targets]]


def epoch_order(indices: Tensor, seed: int, epoch: int) -> Tensor:
    """Returns `indices` (int64, CPU) in the random order of one epoch; the same for the same (seed, epoch) on every machine."""
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


def training_windows(
    feed: ImageFeed, labels_N: Tensor, indices: Tensor, settings: WindowSettings, epoch: int, image_size: int, first_window: int = 0
) -> Generator[Window]:
    """Yields one epoch's windows, from number `first_window` (from 0) on: every sample of `indices` once, the last window ragged where they
    do not divide.

    labels_N: the whole store's labels, on the device. indices: int64 on the CPU, the samples to train on. Which sample comes when, and what
    augmentation and mixing do to it, depends on (seed, epoch, sample) alone: not on micro_batch, nor on the device.
    """
    order = epoch_order(indices, settings.seed, epoch)
    order_on_device = order.to(feed.device, non_blocking=True)
    windows = [(start, min(start + settings.effective_batch, len(order))) for start in range(0, len(order), settings.effective_batch)]
    windows = windows[first_window:]
    spans = [[(at, min(at + settings.micro_batch, stop)) for at in range(start, stop, settings.micro_batch)] for start, stop in windows]
    with closing(feed.stream([order[first:last] for window_spans in spans for first, last in window_spans])) as pictures:
        for (start, stop), window_spans in zip(windows, spans, strict=True):
            samples_W = order_on_device[start:stop]
            plan = settings.mixing.plan(samples_W, settings.seed, epoch, image_size) if settings.mixing is not None else None
            targets = Targets(labels_N[samples_W]) if plan is None else plan.targets(labels_N[samples_W])
            inside = [(first - start, last - start) for first, last in window_spans]
            yield Window(targets, stop - start, _micro_batches(pictures, samples_W, targets, plan, inside, settings, epoch, image_size))


def _micro_batches(
    pictures: Iterator[Tensor],
    samples_W: Tensor,
    targets: Targets,
    plan: MixPlan | None,
    spans: list[tuple[int, int]],
    settings: WindowSettings,
    epoch: int,
    image_size: int,
) -> Generator[tuple[Tensor, Targets]]:
    """Yields a window's micro-batches: `spans` are the samples of each, counted from the window's start."""
    for first, last in spans:
        images_BCHW = augment(
            next(pictures),
            samples_W[first:last],
            preset=PRESETS[settings.preset],
            out_size=image_size,
            seed=settings.seed,
            epoch=epoch,
            dtype=settings.dtype,
        )
        if plan is not None:
            images_BCHW = plan.slice(first, last).images(images_BCHW)
        yield images_BCHW, targets.slice(first, last)


def evaluation_batches(
    feed: ImageFeed, labels_N: Tensor, indices: Tensor, batch: int, image_size: int, dtype: torch.dtype = torch.float32
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields (images (B, 3, image_size, image_size), labels (B,)) over `indices` (int64, CPU) in their order, whole pictures, not augmented."""
    parts = list(indices.split(batch))
    with closing(feed.stream(parts)) as pictures:
        for part, images_BHWC in zip(parts, pictures, strict=True):
            yield evaluation_view(images_BHWC, image_size, dtype), labels_N[part.to(feed.device, non_blocking=True)]
