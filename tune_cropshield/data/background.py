"""How well the borders of photographs tell their classes: what a network may learn in place of the leaf.

Of PlantVillage, whose classes were photographed one after another on a table, eight pixels of the background tell 49 %
of the photographs' 38 classes (Noyan 2022, https://arxiv.org/abs/2206.04374; there with a random forest). Here it is
asked of the nearest neighbours, as scipy is here anyway; a random forest finds a little more.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tune_cropshield.data.dataset import LeafData
from tune_cropshield.data.near_copies import THUMBNAIL_SIDE, Thumbnails, joined

FEWEST = 50  # photographs: of fewer, nothing can be said
MOST = 4000  # more would take seconds and say the same
FOLDS = 5
NEIGHBOURS = 5
WARNING = "the background gives the class away, unless leaves reach to the border: expect a lower accuracy in the field"
ENDS = (0, THUMBNAIL_SIDE // 2, THUMBNAIL_SIDE - 1)
PLACES = tuple((row, column) for row in ENDS for column in ENDS if (row, column) != (ENDS[1], ENDS[1]))
# A background tells too much that closes so much of the way from always naming the largest class to being right.
TOO_MUCH = 0.2


@dataclass(frozen=True)
class Background:
    """What eight small patches at the border of each photograph tell of its class.

    accuracy: the share of `photographs` whose class they tell, by cross-validation. largest: what always naming the
    largest class would reach; chance: what guessing would.
    """

    accuracy: float
    largest: float
    chance: float
    photographs: int

    @property
    def tells_too_much(self) -> bool:
        """Whether that is far more than without looking, and by more than two standard errors."""
        error = math.sqrt(self.accuracy * (1 - self.accuracy) / self.photographs)
        return self.accuracy - 2 * error > self.largest + TOO_MUCH * (1 - self.largest)

    @property
    def line(self) -> str:
        """The figures in words."""
        return (
            f"eight small patches at the border of a photograph tell the class of {100 * self.accuracy:.0f} % of the "
            f"photographs (always the largest class: {100 * self.largest:.0f} %, guessing: {100 * self.chance:.0f} %)"
        )

    @property
    def told(self) -> str:
        """The figures, and the warning where the background tells too much."""
        return f"{self.line}: {WARNING}" if self.tells_too_much else self.line


def background_of(
    thumbnails: Thumbnails, labels: Sequence[int], keys: Sequence[str], copies: Sequence[Sequence[int]]
) -> Background | None:
    """Returns what the borders of photographs tell of their classes; None of fewer than 50, or of a single class.

    Each fifth of the photographs is judged by the five most similar borders among the others. Of more than 4,000
    photographs, that many are taken at random, the same each time.

    Args:
        thumbnails: of each whole photograph.
        labels: its class.
        keys: photographs with equal keys, of one plant for example, are never judged by each other.
        copies: neither are those of a group, which are one photograph.
    """
    if len(labels) < FEWEST or len(set(labels)) < 2:
        return None
    generator = np.random.default_rng(0)
    folds = generator.integers(FOLDS, size=len(labels))
    with_key: dict[str, list[int]] = defaultdict(list)
    for place, key in enumerate(keys):
        with_key[key].append(place)
    for group in joined(len(labels), [pair for members in (*copies, *with_key.values()) for pair in pairwise(members)]):
        folds[group] = folds[group[0]]
    taken = np.sort(generator.permutation(len(labels))[:MOST])
    borders = np.concatenate([thumbnails[taken, row, column] for row, column in PLACES], axis=1)
    classes, known = np.unique(np.asarray(labels)[taken], return_inverse=True)
    guessed = np.full_like(known, -1)
    for fold in range(FOLDS):
        judged = folds[taken] == fold
        guessed[judged] = _most_similar(borders[~judged], known[~judged], borders[judged])
    largest = int(np.bincount(known).max())
    right = int((guessed == known).sum())
    return Background(right / len(taken), largest / len(taken), 1 / len(classes), len(taken))


def background_in(data: LeafData) -> Background | None:
    """Returns what `background_of` says of photographs that were decoded and split."""
    return background_of(data.store.thumbnails(), data.store.labels.tolist(), data.keys, data.copies)


def _most_similar(
    borders: npt.NDArray[np.uint8], labels: npt.NDArray[np.intp], judged: npt.NDArray[np.uint8]
) -> npt.NDArray[np.intp]:
    """Returns the commonest label among the most similar `borders`, for each of `judged`; of equals, the first."""
    if not len(judged) or not len(borders):
        return np.full(len(judged), -1)
    from scipy.spatial import cKDTree  # half a second to import

    near = cKDTree(borders).query(judged, k=range(1, min(NEIGHBOURS, len(borders)) + 1))[1]
    votes = np.stack([(labels[near] == label).sum(axis=1) for label in range(labels.max() + 1)], axis=1)
    return np.asarray(votes.argmax(axis=1), dtype=np.intp)
