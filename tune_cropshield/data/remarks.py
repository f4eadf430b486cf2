"""What a user should know of the photographs before a network is trained on them."""

from __future__ import annotations

import numpy as np
import torch

from tune_cropshield.data.class_sizes import (
    always_the_largest_line,
    is_imbalanced,
    sizes_line,
    validation_is_small,
    validation_line,
)
from tune_cropshield.data.dataset import LeafData
from tune_cropshield.data.layout import side_of as named_side
from tune_cropshield.data.left_out import left_out_lines
from tune_cropshield.data.long_photographs import long_photographs_lines
from tune_cropshield.data.look_alikes import look_alike_lines
from tune_cropshield.data.near_copies import groups_of_near_copies
from tune_cropshield.data.split import TEST, TRAIN, VAL

EXAMPLES = 3


def remarks(data: LeafData) -> list[str]:
    """Returns what is noteworthy, a sentence each.

    That is what was left out, class names that look alike, classes of unequal size, few validation photographs, long
    photographs that are cropped, a given split with what its sides share, and copies of one photograph on two sides.
    """
    classes = _counts(data, data.store.labels)
    lines = left_out_lines(data.left_out) + look_alike_lines(classes)
    if is_imbalanced(classes):
        lines.append(f"classes of unequal size: {sizes_line(classes)}; {always_the_largest_line(classes)}")
    validation = _counts(data, data.store.labels[torch.from_numpy(data.split.val)])
    if validation_is_small(validation):
        lines.append(validation_line(validation))
    if {preparation.fit for preparation in data.stores} == {"crop"}:
        lines += long_photographs_lines(data.store.sizes)
    if data.given_split:
        lines += [_given(data), *_identical_on_both_sides(data)]
    return [*lines, *_near_copies_on_both_sides(data)]


def _counts(data: LeafData, labels: torch.Tensor) -> dict[str, int]:
    """Returns how many photographs of each class bear these labels."""
    counts = torch.bincount(labels, minlength=len(data.classes)).tolist()
    return dict(zip(data.classes, counts, strict=True))


def _given(data: LeafData) -> str:
    has_test = "" if len(data.split.test) else "; it has no test photographs"
    return f"the split is used as the folders give it{has_test}"


def _identical_on_both_sides(data: LeafData) -> list[str]:
    """Returns a sentence where identical files lie on two sides of a given split, which a split by content prevents."""
    first: dict[str, tuple[str, str]] = {}  # digest -> side, path
    pairs = []
    for side, indices in ((TRAIN, data.split.train), (VAL, data.split.val), (TEST, data.split.test)):
        for index in indices.tolist():
            path = data.store.paths[index]
            known_side, known_path = first.setdefault(data.store.digests[index], (side, path))
            if known_side != side:
                pairs.append(f"{known_path} = {path}")
    if not pairs:
        return []
    return [
        f"{len(pairs)} photographs of val and test are identical files to others of the split, so accuracy flatters: "
        + ", ".join(pairs[:EXAMPLES])
    ]


def _near_copies_on_both_sides(data: LeafData) -> list[str]:
    """Returns a sentence where copies that are no identical files lie on two sides of the split."""
    split, store = data.split, data.store
    side_of = dict.fromkeys(split.train.tolist(), TRAIN)
    side_of |= dict.fromkeys(split.val.tolist(), VAL) | dict.fromkeys(split.test.tolist(), TEST)
    asked = np.concatenate([split.val, split.test])
    touched: dict[str, set[int]] = {VAL: set(), TEST: set()}
    examples = []
    for group in groups_of_near_copies(store.thumbnails(), [_without_side(path) for path in store.paths], asked):
        first = group[0]
        across = next(
            (
                index
                for index in group
                if side_of[index] != side_of[first] and store.digests[index] != store.digests[first]
            ),
            None,
        )
        if across is None:
            continue
        examples.append(f"{store.paths[first]} ({side_of[first]}) and {store.paths[across]} ({side_of[across]})")
        for index in group:
            if side_of[index] != TRAIN:
                touched[side_of[index]].add(index)
    if not examples:
        return []
    counts = " and ".join(
        f"{len(touched[side])} of {len(getattr(split, side))} {word} photographs"
        for side, word in ((VAL, "validation"), (TEST, "test"))
        if touched[side]
    )
    return [
        f"{counts} have a copy on another side of the split (turned, mirrored, rescaled, compressed or named so), "
        f"and accuracy flatters: {', '.join(examples[:EXAMPLES])}; keep one of each, or give a split (train/, val/)"
    ]


def _without_side(path: str) -> str:
    """Returns a path without the folder that names the side of a given split."""
    return "/".join(part for part in path.split("/") if named_side(part) is None)
