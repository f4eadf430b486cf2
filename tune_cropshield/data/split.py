"""Which images are for training, validation and test: decided by their content alone."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tune_cropshield.data.look_alikes import joined_by, look_alikes
from tune_cropshield.errors import DataError

TRAIN, VAL, TEST = "train", "val", "test"
MOST_NAMED = 40  # classes that one message names: a table whose labels are no classes has thousands


@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint, sorted int64 index arrays that together hold every image once."""

    train: npt.NDArray[np.int64]
    val: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def split_by_content(
    labels: Sequence[int],
    digests: Sequence[str],
    classes: Sequence[str],
    seed: int,
    val_share: float = 0.1,
    test_share: float = 0.1,
) -> Split:
    """Returns a split with the asked shares of each class's distinct images, rounded, and at least one on each side.

    Images with equal digests stay together, also across classes. An image's place follows from SHA-256 of
    "seed:digest": names and order do not matter, and adding an image to a class moves at most two others of that class
    (the one next to each border). Test images come from one end of that order and validation images from the other, so
    neither turns into the other as the folder grows.

    Args:
        labels, digests: one per image; labels index into `classes`.
        val_share, test_share: 0 leaves that side empty.

    Raises:
        DataError: names every class with too few distinct images.
    """
    if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):
        raise DataError(
            f"`val_share + test_share < 1` must hold, both at least 0, but got val_share={val_share}, "
            f"test_share={test_share}"
        )
    assert len(labels) == len(digests)
    shares = {TEST: test_share, VAL: val_share}
    sides = [TRAIN, *(side for side, share in shares.items() if share > 0)]

    order = {digest: _order(seed, digest) for digest in set(digests)}
    members: list[set[str]] = [set() for _ in classes]
    for label, digest in zip(labels, digests, strict=True):
        members[label].add(digest)
    num_classes_of = Counter(digest for members_of_class in members for digest in members_of_class)

    # An image filed under several classes cannot follow the quota of each: it goes where its own hash says, and the
    # quotas count it.
    side_of = {digest: _side_of_shared(order[digest], shares) for digest, count in num_classes_of.items() if count > 1}
    faults = []
    for name, digests_of_class in zip(classes, members, strict=True):
        own = sorted((digest for digest in digests_of_class if num_classes_of[digest] == 1), key=order.__getitem__)
        shared = Counter(side_of[digest] for digest in digests_of_class if num_classes_of[digest] > 1)
        needed = {side: 0 if shared[side] else 1 for side in sides}
        if len(own) < sum(needed.values()):
            num_shared = len(digests_of_class) - len(own)
            also = f" ({num_shared} also in other classes)" if num_shared else ""
            faults.append(
                f"{name!r} has {len(digests_of_class)}{also}, needs {len(sides)}{' of its own' if num_shared else ''}"
            )
            continue
        taken = {}
        spare = len(own) - sum(needed.values())
        for side, share in shares.items():
            quota = int(len(digests_of_class) * share + 0.5) - shared[side]
            extra = min(max(quota - needed.get(side, 0), 0), spare)
            taken[side] = needed.get(side, 0) + extra
            spare -= extra
        side_of |= dict.fromkeys(own, TRAIN)
        side_of |= dict.fromkeys(own[: taken[TEST]], TEST)
        side_of |= dict.fromkeys(own[len(own) - taken[VAL] :], VAL)
    if faults:
        raise DataError(f"too few distinct images to split into {', '.join(sides)}: {'; '.join(faults)}")

    indices: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests):
        indices[side_of[digest]].append(index)
    train, val, test = (np.array(indices[side], dtype=np.int64) for side in (TRAIN, VAL, TEST))
    return Split(train, val, test)


def split_as_given(
    labels: Sequence[int],
    digests: Sequence[str],
    classes: Sequence[str],
    sides: Sequence[str],
    seed: int,
    val_share: float = 0.1,
) -> Split:
    """Returns the split that the folders name. Without a val side, validation is drawn from train by content.

    Args:
        sides: "train", "val" or "test" of each image. Without any "test", that side is empty.
        seed, val_share: see `split_by_content`; only used without a val side.

    Raises:
        DataError: a class is missing in train or val.
    """
    check_given_split(classes, labels, sides)
    named = split_of(sides)
    if len(named.val):
        return named
    train, test = named.train, named.test
    drawn = split_by_content(
        [labels[index] for index in train], [digests[index] for index in train], classes, seed, val_share, 0.0
    )
    return Split(train[drawn.train], train[drawn.val], test)


def split_of(sides: Sequence[str]) -> Split:
    """Returns the split in which each image, in order, lies on its side: "train", "val" or "test"."""
    of_side = {side: [index for index, of in enumerate(sides) if of == side] for side in (TRAIN, VAL, TEST)}
    return Split(*(np.array(of_side[side], dtype=np.int64) for side in (TRAIN, VAL, TEST)))


def fold_of(
    split: Split,
    labels: Sequence[int],
    digests: Sequence[str],
    classes: Sequence[str],
    seed: int,
    folds: int,
    fold: int,
) -> Split:
    """Returns the split that validates on fold `fold` (from 0) of `folds`, and trains on the others.

    The folds are made of the train and validation images of `split`, whichever are which; its test images stay. Each
    class's distinct images are dealt out, one to each fold in turn, in the order of SHA-256 of "seed:digest"; images
    with equal digests stay together, also across classes.

    Args:
        labels, digests: one per image of the whole data set.

    Raises:
        DataError: names every class with fewer distinct images than folds.
    """
    assert 0 <= fold < folds
    dealt = np.sort(np.concatenate([split.train, split.val]))
    members: list[set[str]] = [set() for _ in classes]
    for index in dealt.tolist():
        members[labels[index]].add(digests[index])
    few = [f"{name!r} has {len(of)}" for name, of in zip(classes, members, strict=True) if len(of) < folds]
    if few:
        raise DataError(f"too few distinct images to train and validate on for {folds} folds: {'; '.join(few)}")
    fold_of_digest: dict[str, int] = {}
    place = 0  # goes on from class to class: else the first folds would be the largest
    for of in members:
        for digest in sorted(of, key=lambda digest: _order(seed, digest)):
            if digest not in fold_of_digest:
                fold_of_digest[digest] = place % folds
                place += 1
    validates = np.array([fold_of_digest[digests[index]] == fold for index in dealt.tolist()], dtype=bool)
    return _with_all_classes(Split(dealt[~validates], dealt[validates], split.test), classes, labels, fold, folds)


def _with_all_classes(chosen: Split, classes: Sequence[str], labels: Sequence[int], fold: int, folds: int) -> Split:
    """Returns a fold; raises DataError where a class has no images on one of its sides."""
    for name, side in (("train on", chosen.train), ("validate on", chosen.val)):
        there = {labels[index] for index in side.tolist()}
        if lacking := [repr(of) for label, of in enumerate(classes) if label not in there]:
            raise DataError(f"fold {fold} of {folds} has no images of {', '.join(lacking)} to {name}: use fewer folds")
    return chosen


def given_folds_of(
    split: Split, numbers: Sequence[int | None], classes: Sequence[str], labels: Sequence[int], fold: int
) -> Split:
    """Returns the split that validates on fold `fold` of the training and validation images, as a table deals them.

    numbers: the fold of each image of the whole data set, None for test images.

    Raises:
        DataError: a class has no images to train on, or none to validate on.
    """
    dealt = np.sort(np.concatenate([split.train, split.val]))
    validates = np.array([numbers[index] == fold for index in dealt.tolist()], dtype=bool)
    folds = 1 + max(number for number in numbers if number is not None)
    return _with_all_classes(Split(dealt[~validates], dealt[validates], split.test), classes, labels, fold, folds)


def check_given_folds(folds: int, numbers: Sequence[int | None], place: str) -> None:
    """Raises DataError where there are to be several folds, and a table deals the images into another number of them.

    numbers: the fold of each image, None where the table names none. place: the table.
    """
    given = 1 + max((number for number in numbers if number is not None), default=-1)
    if given and folds not in (1, given):
        raise DataError(
            f"{place} deals the photographs into {given} folds, but `folds = {folds}`: set folds = {given}, or leave "
            'its column unused (columns = {fold = ""} in [data])'
        )


def check_classes_of_folds(
    folds: int, numbers: Sequence[int | None], labels: Sequence[int], classes: Sequence[str], place: str
) -> None:
    """Raises DataError where there are to be several folds, as a table deals them, and one of them lacks a class.

    numbers: the fold of each image, None for those of the test. labels: its class. place: the table.
    """
    dealt = Counter((number, label) for number, label in zip(numbers, labels, strict=True) if number is not None)
    if folds == 1 or not dealt:
        return
    of_class = Counter(label for number, label in dealt)  # the folds that hold some of it
    faults = [
        f"{name!r} is in {of_class[label]} of {folds} folds"
        for label, name in enumerate(classes)
        if of_class[label] < folds
    ]
    if faults:
        raise DataError(
            f"{place}: each fold must hold photographs of each class, but {', '.join(faults)}: deal them into all, or "
            'leave the column unused (columns = {fold = ""} in [data])'
        )


def check_folds(folds: int, given: Collection[str], folder: str, given_by: str = "the folders") -> None:
    """Raises DataError where there are to be several folds although the validation photographs are given.

    given: the sides that are. given_by: what names them.
    """
    if folds > 1 and VAL in given:
        raise DataError(
            f"{folder}: `folds = {folds}` splits training and validation photographs again, but {given_by} "
            f"{'name' if given_by == 'the folders' else 'names'} the validation photographs ({VAL}): leave folds out, "
            "or use replicates"
        )


def _order(seed: int, digest: str) -> bytes:
    return hashlib.sha256(f"{seed}:{digest}".encode()).digest()


def check_given_split(classes: Sequence[str], labels: Sequence[int], sides: Sequence[str]) -> None:
    """Raises DataError where a class of a given split has no images in train, or none in val although val is there."""
    if faults := given_split_faults(classes, labels, sides):
        raise DataError(faults[0])  # a class that two sides spell in two ways is at fault on both


def given_split_faults(classes: Sequence[str], labels: Sequence[int], sides: Sequence[str]) -> list[str]:
    """Returns a sentence for each side, train and val, of a given split that lacks a class; there may be no val."""
    faults = []
    for side in (TRAIN, VAL):
        there = {label for label, of in zip(labels, sides, strict=True) if of == side}
        lacking = [name for label, name in enumerate(classes) if label not in there]
        if lacking and (there or side == TRAIN):
            counts = Counter(classes[label] for label in labels)
            one = [pair for pair in look_alikes(counts) if pair.rarer in lacking or pair.other in lacking]
            joined = f" (are {one[0].rarer!r} and {one[0].other!r} one class? {joined_by(one, counts)})" if one else ""
            more = f" and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
            named = f"{', '.join(map(repr, lacking[:MOST_NAMED]))}{more}"
            faults.append(
                f"the given split has no {side} photographs of {named}: each class must be in train and in val{joined}"
            )
    return faults


def _side_of_shared(hash_bytes: bytes, shares: dict[str, float]) -> str:
    place = int.from_bytes(hash_bytes[:8], "big") / 2**64
    if place < shares[TEST]:
        return TEST
    return VAL if place >= 1 - shares[VAL] else TRAIN
