"""What a user should know of the photographs before a network is trained on them."""

from __future__ import annotations

import torch

from tune_cropshield.data.dataset import LeafData
from tune_cropshield.data.left_out import left_out_lines
from tune_cropshield.data.look_alikes import look_alike_lines
from tune_cropshield.data.split import TEST, TRAIN, VAL

EXAMPLES = 3


def remarks(data: LeafData) -> list[str]:
    """Returns what is noteworthy, a sentence each.

    That is what was left out, class names that look alike, and a given split with what its sides share.
    """
    counts = torch.bincount(data.store.labels, minlength=len(data.classes)).tolist()
    lines = left_out_lines(data.left_out) + look_alike_lines(dict(zip(data.classes, counts, strict=True)))
    if data.given_split:
        lines += [_given(data), *_identical_on_both_sides(data)]
    return lines


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
