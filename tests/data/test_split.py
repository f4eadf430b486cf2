from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tune_cropshield.data.split import Split, fold_of, split_as_given, split_by_content
from tune_cropshield.errors import DataError

SIDES = ("train", "val", "test")


def digests_of(label: int, count: int) -> list[str]:
    return [f"{label}-{index}" for index in range(count)]


def folder_of(*counts: int) -> tuple[list[int], list[str], list[str]]:
    """Returns labels, digests and class names of a folder with so many distinct images per class."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return (
        labels,
        [digest for label, count in enumerate(counts) for digest in digests_of(label, count)],
        [f"c{i}" for i in range(len(counts))],
    )


def sides_of(split: Split, digests: list[str]) -> dict[str, str]:
    return {digests[index]: side for side in SIDES for index in getattr(split, side)}


def test_a_split_is_the_same_for_ever() -> None:
    labels, digests, classes = folder_of(5, 5)
    split = split_by_content(labels, digests, classes, seed=0, val_share=0.2, test_share=0.2)
    assert split.train.tolist() == [0, 1, 4, 5, 7, 8]
    assert split.val.tolist() == [3, 9]
    assert split.test.tolist() == [2, 6]
    assert split.train.dtype == split.val.dtype == split.test.dtype == np.int64


def test_another_seed_is_another_split() -> None:
    labels, digests, classes = folder_of(50, 50)
    first, second = (split_by_content(labels, digests, classes, seed) for seed in (0, 1))
    assert first.test.tolist() != second.test.tolist()


def test_each_class_is_split_in_the_asked_shares() -> None:
    labels, digests, classes = folder_of(100, 40, 10)
    split = split_by_content(labels, digests, classes, seed=3, val_share=0.1, test_share=0.2)
    counts = {side: Counter(labels[index] for index in getattr(split, side)) for side in SIDES}
    assert counts == {"train": {0: 70, 1: 28, 2: 7}, "val": {0: 10, 1: 4, 2: 1}, "test": {0: 20, 1: 8, 2: 2}}


def test_three_images_are_enough_for_one_on_each_side() -> None:
    labels, digests, classes = folder_of(3, 3)
    split = split_by_content(labels, digests, classes, seed=0)
    assert [len(getattr(split, side)) for side in SIDES] == [2, 2, 2]


def test_a_share_of_zero_leaves_that_side_empty() -> None:
    labels, digests, classes = folder_of(2, 10)
    split = split_by_content(labels, digests, classes, seed=0, test_share=0.0)
    assert [len(getattr(split, side)) for side in SIDES] == [10, 2, 0]
    assert split.test.dtype == np.int64


def test_every_class_with_too_few_distinct_images_is_named_at_once() -> None:
    labels, digests, classes = folder_of(2, 10, 1)
    labels, digests = [*labels, 2, 2], [*digests, "2-0", "2-0"]  # copies do not count
    with pytest.raises(DataError) as caught:
        split_by_content(labels, digests, classes, seed=0)
    assert (
        str(caught.value)
        == "too few distinct images to split into train, test, val: 'c0' has 2, needs 3; 'c2' has 1, needs 3"
    )


def test_a_class_made_of_another_classs_images_is_named_with_the_reason() -> None:
    labels, digests, classes = folder_of(10, 0)
    with pytest.raises(DataError, match=r"'c1' has 3 \(3 also in other classes\), needs 3 of its own$"):
        split_by_content([*labels, 1, 1, 1], [*digests, "0-0", "0-1", "0-2"], classes, seed=1)


@pytest.mark.parametrize(("val_share", "test_share"), [(-0.1, 0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_impossible_shares_are_refused(val_share: float, test_share: float) -> None:
    with pytest.raises(DataError, match="`val_share \\+ test_share < 1` must hold"):
        split_by_content(*folder_of(9, 9), seed=0, val_share=val_share, test_share=test_share)


def test_copies_stay_together_within_and_across_classes() -> None:
    labels, digests, classes = folder_of(30, 30)
    labels += [0] * 30 + [1] * 10
    digests += digests_of(0, 30) + digests_of(0, 10)  # every image of c0 twice, ten of them in c1 as well
    split = split_by_content(labels, digests, classes, seed=0, val_share=0.3, test_share=0.3)
    on = {side: {digests[index] for index in getattr(split, side)} for side in SIDES}
    assert on["train"] & on["val"] == on["train"] & on["test"] == on["val"] & on["test"] == set()
    assert sorted([*split.train, *split.val, *split.test]) == list(range(100))


folders = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=0, max_size=80
)  # (label, digest): repeats within and across classes come by themselves


def with_enough_of_each_class(pairs: list[tuple[int, int]]) -> tuple[list[int], list[str]]:
    pairs = [*pairs, *((label, 1000 + 10 * label + extra) for label in range(3) for extra in range(3))]
    return [label for label, _ in pairs], [str(digest) for _, digest in pairs]


@settings(max_examples=60, deadline=None)
@given(folders, st.integers(0, 2**32), st.sampled_from([(0.1, 0.1), (0.3, 0.05), (0.45, 0.45), (0.0, 0.2)]))
def test_any_folder_is_split_into_disjoint_sorted_sides_with_every_class(
    pairs: list[tuple[int, int]], seed: int, shares: tuple[float, float]
) -> None:
    labels, digests = with_enough_of_each_class(pairs)
    split = split_by_content(labels, digests, ["a", "b", "c"], seed, *shares)
    assert sorted([*split.train, *split.val, *split.test]) == list(range(len(labels)))
    on = [set(digests[index] for index in getattr(split, side)) for side in SIDES]
    assert not (on[0] & on[1] or on[0] & on[2] or on[1] & on[2])
    for side, share in zip(SIDES, (1.0, *shares), strict=True):
        indices = getattr(split, side).tolist()
        assert indices == sorted(indices)
        assert {labels[index] for index in indices} == ({0, 1, 2} if share else set())


@settings(max_examples=40, deadline=None)
@given(folders, st.integers(0, 1000))
def test_renaming_and_reordering_files_moves_none(pairs: list[tuple[int, int]], shuffle_seed: int) -> None:
    labels, digests = with_enough_of_each_class(pairs)
    before = sides_of(split_by_content(labels, digests, ["a", "b", "c"], 7), digests)
    order = np.random.default_rng(shuffle_seed).permutation(len(labels))
    renamed = [2, 0, 1]  # the classes are renamed too, so their order changes
    shuffled = [digests[index] for index in order]
    after = sides_of(
        split_by_content([renamed[labels[index]] for index in order], shuffled, ["x", "y", "z"], 7), shuffled
    )
    assert after == before


@settings(max_examples=60, deadline=None)
@given(st.integers(3, 60), st.integers(0, 10_000), st.sampled_from([(0.1, 0.1), (0.3, 0.2)]))
def test_adding_an_image_moves_at_most_two_and_none_between_val_and_test(
    count: int, seed: int, shares: tuple[float, float]
) -> None:
    labels, digests, classes = folder_of(count, 20)
    before = sides_of(split_by_content(labels, digests, classes, seed, *shares), digests)
    grown = [*digests, "new"]
    after = sides_of(split_by_content([*labels, 0], grown, classes, seed, *shares), grown)
    moves = [(before[digest], after[digest]) for digest in digests if before[digest] != after[digest]]
    assert len(moves) <= 2
    assert all("train" in move for move in moves)


def test_a_given_split_is_used_as_it_is() -> None:
    sides = ["train", "val", "train", "test", "val", "train"]
    split = split_as_given([0, 0, 1, 1, 1, 0], list("abcdef"), ["x", "y"], sides, seed=0)
    assert (split.train.tolist(), split.val.tolist(), split.test.tolist()) == ([0, 2, 5], [1, 4], [3])


def test_validation_is_drawn_from_train_where_only_test_is_given() -> None:
    labels, digests, classes = folder_of(10, 10)
    split = split_as_given([*labels, 0, 1], [*digests, "t0", "t1"], classes, ["train"] * 20 + ["test"] * 2, 0, 0.2)
    assert split.test.tolist() == [20, 21]
    assert Counter(labels[index] for index in split.val) == {0: 2, 1: 2}
    assert sorted([*split.train, *split.val]) == list(range(20))


def test_a_given_split_without_a_class_in_val_is_refused() -> None:
    with pytest.raises(DataError, match=r"no val photographs of 'y': each class must be in train and in val"):
        split_as_given([0, 1, 0], list("abc"), ["x", "y"], ["train", "train", "val"], seed=0)


def folds_of(labels: list[int], digests: list[str], classes: list[str], folds: int) -> tuple[Split, list[Split]]:
    split = split_by_content(labels, digests, classes, seed=0, val_share=0.2, test_share=0.2)
    return split, [fold_of(split, labels, digests, classes, 0, folds, fold) for fold in range(folds)]


def test_each_image_outside_of_the_test_part_validates_in_one_fold() -> None:
    labels, digests, classes = folder_of(15, 10)
    split, folds = folds_of(labels, digests, classes, 3)
    kept = sorted([*split.train.tolist(), *split.val.tolist()])

    assert sorted(index for fold in folds for index in fold.val.tolist()) == kept
    assert [sorted([*fold.train.tolist(), *fold.val.tolist()]) for fold in folds] == [kept] * 3
    assert [fold.test.tolist() for fold in folds] == [split.test.tolist()] * 3
    counts = [Counter(labels[index] for index in fold.val.tolist()) for fold in folds]
    assert counts == [{0: 4, 1: 3}, {0: 4, 1: 3}, {0: 4, 1: 2}]  # 12 and 8 of them


def test_folds_are_the_same_for_ever() -> None:
    _, folds = folds_of(*folder_of(5, 5), 2)
    assert [fold.val.tolist() for fold in folds] == [[0, 1, 5, 8], [3, 4, 7, 9]]


def test_identical_images_are_in_one_fold() -> None:
    labels, digests, classes = folder_of(10, 10)
    labels, digests = labels + labels, digests + digests
    digests[10] = digests[0]  # in both classes
    _, folds = folds_of(labels, digests, classes, 4)
    for fold in folds:
        assert not {digests[index] for index in fold.train} & {digests[index] for index in fold.val}


def test_a_fold_of_a_fold_is_that_of_the_split() -> None:
    labels, digests, classes = folder_of(9, 9)
    _, folds = folds_of(labels, digests, classes, 3)
    assert fold_of(folds[0], labels, digests, classes, 0, 3, 2).val.tolist() == folds[2].val.tolist()


def test_a_class_with_fewer_images_than_folds_is_named() -> None:
    with pytest.raises(DataError, match=r"^too few distinct images to train and validate on for 4 folds: 'c1' has 3$"):
        folds_of(*folder_of(10, 4), 4)
