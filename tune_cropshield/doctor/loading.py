"""Images per second that reach the training step: a stock loader, one process, against our decoded store."""

from __future__ import annotations

import random
import statistics
import time
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.decode import DecodeError
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation
from tune_cropshield.data.sources import list_photographs
from tune_cropshield.data.windows import Window, WindowSettings, training_windows
from tune_cropshield.errors import DataError
from tune_cropshield.memory.measure.step_driver import seconds_of

SAMPLE = 256  # photographs; more would not make it steadier
BATCH = 32
MOST_ROUNDS = 12


@dataclass(frozen=True)
class Loading:
    """Images per second by way of the usual loader and by way of ours."""

    stock_images_per_s: float  # one process that decodes and augments each image anew
    store_images_per_s: float  # from the decoded store to augmented images on the device
    decode_images_per_s: float  # one thread that fills the store, which is done once
    image_size: int  # px
    images: int  # photographs in the sample

    @property
    def gain(self) -> float:
        return self.store_images_per_s / self.stock_images_per_s


class _Photographs(Dataset[tuple[Tensor, int]]):
    """The usual data set of a training script: opens, decodes and augments on demand.

    As strong as our own "moderate".
    """

    def __init__(self, paths: list[Path], image_size: int) -> None:
        self._paths = paths
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(image_size, scale=(0.7, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(15),
                transforms.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(self._paths[index]) as image:
                return self._transform(image.convert("RGB")), 0


def measure_loading(data: DataConfig, image_size: int, device: torch.device, seconds: float) -> Loading:
    """Returns the speeds over a sample of the photographs, in about `seconds`.

    Files that cannot be decoded are passed over.
    """
    listed = list_photographs(data)
    paths = [listed.root / image.path for image, _, _ in listed.images]
    random.Random(0).shuffle(paths)
    started = time.perf_counter()
    pictures, sound = [], []
    for path in paths[:SAMPLE]:
        try:
            pictures.append(Preparation(image_size).picture_of(path))
            sound.append(path)
        except DecodeError:
            continue
        if len(sound) >= BATCH and time.perf_counter() - started > seconds / 4:
            break
    if not sound:
        raise DataError(f"none of {min(len(paths), SAMPLE)} photographs in {data.place!r} can be read")
    decode = len(sound) / (time.perf_counter() - started)
    stock = _stock(sound, image_size, seconds / 2)
    store = _store(torch.from_numpy(np.stack(pictures)), image_size, device, seconds / 4)
    return Loading(stock, store, decode, image_size, len(sound))


def _stock(paths: list[Path], image_size: int, seconds: float) -> float:
    """Returns images/s of a DataLoader in this process, the first batch outside the clock."""
    rounds = max(MOST_ROUNDS, 4 * BATCH // len(paths))
    batches = iter(DataLoader(_Photographs(paths * rounds, image_size), BATCH))
    next(batches)
    rates, started = [], time.perf_counter()
    for images, _ in batches:
        now = time.perf_counter()
        rates.append((now - started, len(images)))
        started = now
        if sum(spent for spent, _ in rates) > seconds:
            break
    return sum(images for _, images in rates) / sum(spent for spent, _ in rates)


def _store(pictures: Tensor, image_size: int, device: torch.device, seconds: float) -> float:
    """Returns images/s of a trial's own windows, without the training: gathered, copied to the device, augmented there.

    The first round warms up.
    """
    feed = ImageFeed(pictures, device)
    indices = torch.arange(len(pictures))
    labels = torch.zeros(len(pictures), dtype=torch.int64, device=device)
    settings = WindowSettings(BATCH, BATCH, "moderate", None, 0)
    rates: list[float] = []
    began = time.perf_counter()
    for epoch in range(MOST_ROUNDS):
        if len(rates) > 1 and time.perf_counter() - began > seconds:
            break
        windows = training_windows(feed, labels, indices, settings, epoch, image_size)
        rates.append(len(indices) / seconds_of(partial(_make_images, windows), device))
    return statistics.median(rates[1:])


def _make_images(windows: Iterable[Window]) -> None:
    for window in windows:
        for micro_batch in window.micro_batches:
            micro_batch.images()


def gain_behind(loader_images_per_s: float, slow_images_per_s: float, fast_images_per_s: float) -> float:
    """Returns how much faster training gets by a faster step when a loader feeds both."""
    return min(fast_images_per_s, loader_images_per_s) / min(slow_images_per_s, loader_images_per_s)
