"""How an epoch is cut up."""

from __future__ import annotations

import pytest
import torch

from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.windows import WindowSettings, num_windows, training_windows


def sizes(images: int, effective_batch: int, micro_batch: int) -> list[list[int]]:
    """Returns the sizes of each window's micro-batches; every sample must come once."""
    feed = ImageFeed(torch.zeros(images, 8, 8, 3, dtype=torch.uint8), torch.device("cpu"))
    cut = WindowSettings(effective_batch, micro_batch, "none", None, seed=0)
    windows, seen = [], []
    for window in training_windows(
        feed, torch.zeros(images, dtype=torch.int64), torch.arange(images), cut, epoch=0, image_size=8
    ):
        batches = list(window.micro_batches)
        assert sum(len(batch.samples_B) for batch in batches) == window.num_samples
        windows.append([len(batch.samples_B) for batch in batches])
        seen += torch.cat([batch.samples_B for batch in batches]).tolist()
    assert sorted(seen) == list(range(images))
    return windows


@pytest.mark.parametrize(
    ("images", "effective_batch", "micro_batch", "expected"),
    [
        (70, 32, 16, [[16, 16], [16, 16], [6]]),
        (33, 16, 16, [[16], [14], [3]]),
        (49, 32, 16, [[16, 16], [14, 3]]),
        (65, 32, 16, [[16, 16], [16, 14], [3]]),
        (5, 2, 2, [[2], [3]]),  # one of two has none to give
        (4, 3, 3, [[2], [2]]),
        (7, 6, 3, [[2, 2], [3]]),
        (13, 12, 2, [[2, 2, 2, 2, 2], [3]]),
        (5, 4, 1, [[1, 1], [1, 1, 1]]),
        (1, 4, 4, [[1]]),
    ],
)
def test_a_last_micro_batch_of_one_image_takes_some_from_the_one_before_it(
    images: int, effective_batch: int, micro_batch: int, expected: list[list[int]]
) -> None:
    assert sizes(images, effective_batch, micro_batch) == expected


@pytest.mark.parametrize("micro_batch", [2, 3, 4, 5])
@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_no_image_is_ever_alone_and_the_windows_are_as_many_as_is_said(micro_batch: int, accumulation: int) -> None:
    for images in range(2, 4 * micro_batch * accumulation):
        windows = sizes(images, micro_batch * accumulation, micro_batch)
        assert min(min(window) for window in windows) >= 2, images
        assert max(max(window) for window in windows) <= max(micro_batch, 3)
        assert num_windows(images, micro_batch * accumulation) == len(windows)
