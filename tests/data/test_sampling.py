"""Which photographs an epoch draws where every class is to be seen equally often."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.mixing import Mixing
from tune_cropshield.data.sampling import balanced_draws, times_before
from tune_cropshield.data.windows import WindowSettings, training_windows

CPU = torch.device("cpu")
INDICES = torch.arange(20, 38)
LABELS = torch.tensor([0] * 12 + [1] * 5 + [2])


def test_every_class_is_drawn_equally_often() -> None:
    drawn = balanced_draws(INDICES, LABELS, seed=0, epoch=0).tolist()
    large = [index for index in drawn if index < 32]
    assert len(drawn) == 18
    assert len(large) == len(set(large)) == 6  # six of its twelve, each once
    assert sorted(Counter(index for index in drawn if 32 <= index < 37).values()) == [1, 1, 1, 1, 2]
    assert drawn.count(37) == 6


def test_where_classes_do_not_divide_an_epoch_some_are_drawn_once_more() -> None:
    labels = torch.tensor([0] * 17 + [1, 2, 3])
    seen = set()
    for epoch in range(20):
        counts = Counter(labels[balanced_draws(torch.arange(20), labels, 0, epoch)].tolist())
        assert counts == {0: 5, 1: 5, 2: 5, 3: 5}
        odd = Counter(labels[1:][balanced_draws(torch.arange(19), labels[1:], 0, epoch)].tolist())
        assert sorted(odd.values()) == [4, 5, 5, 5]
        seen.add(min(odd, key=odd.__getitem__))
    assert seen == {0, 1, 2, 3}  # another one in each epoch


def test_the_draws_are_the_same_everywhere_and_others_in_every_epoch_and_with_every_seed() -> None:
    assert balanced_draws(INDICES, LABELS, 0, 0).tolist() == [
        *(21, 28, 23, 31, 29, 25),
        *(32, 33, 34, 35, 36, 35),
        *(37, 37, 37, 37, 37, 37),
    ]
    assert balanced_draws(INDICES, LABELS, 0, 1).tolist()[:6] == [27, 26, 21, 20, 24, 30]
    assert balanced_draws(INDICES, LABELS, 1, 0).tolist()[:6] != [21, 28, 23, 31, 29, 25]


def test_a_class_without_photographs_is_passed_over() -> None:
    assert Counter(balanced_draws(torch.arange(4), torch.tensor([0, 0, 0, 5]), 0, 0).tolist())[3] == 2


def test_how_often_a_photograph_came_before_is_counted() -> None:
    assert times_before(torch.tensor([5, 3, 5, 5, 3, 1])).tolist() == [0, 0, 1, 2, 1, 0]
    assert times_before(torch.tensor([], dtype=torch.int64)).tolist() == []


def epoch_of(micro_batch: int, mixing: Mixing | None = None, first_window: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Returns the images and labels of each window of a balanced epoch: 30 photographs, 26 of class 0."""
    pictures = torch.randint(256, (30, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0] * 26 + [1] * 4)
    cut = WindowSettings(8, micro_batch, "aggressive", mixing, seed=3, sampling="balanced")
    windows = training_windows(ImageFeed(pictures, CPU), labels, torch.arange(30), cut, 1, 12, first_window)
    return [
        (torch.cat([batch.images() for batch in window.micro_batches]), window.targets.labels_B) for window in windows
    ]


def test_a_balanced_epoch_has_as_many_images_and_equal_classes() -> None:
    windows = epoch_of(8)
    assert [len(labels) for _, labels in windows] == [8, 8, 8, 6]
    assert torch.bincount(torch.cat([labels for _, labels in windows])).tolist() == [15, 15]


@pytest.mark.parametrize("mixing", [None, Mixing(0.2, 1.0)])
def test_a_balanced_epoch_is_the_same_whatever_the_micro_batch_and_wherever_it_is_taken_up(
    mixing: Mixing | None,
) -> None:
    whole = epoch_of(8, mixing)
    for other, expected in ((epoch_of(2, mixing), whole), (epoch_of(4, mixing, first_window=2), whole[2:])):
        for (images, labels), (expected_images, expected_labels) in zip(other, expected, strict=True):
            assert torch.equal(images, expected_images) and torch.equal(labels, expected_labels)


def test_a_photograph_that_comes_again_in_an_epoch_is_augmented_in_another_way() -> None:
    windows = epoch_of(8)
    images, labels = torch.cat([images for images, _ in windows]), torch.cat([labels for _, labels in windows])
    of_small = images[labels == 1]  # 15 images of 4 photographs
    same = [torch.equal(one, other) for place, one in enumerate(of_small) for other in of_small[:place]]
    assert len(same) == 105 and not any(same)
