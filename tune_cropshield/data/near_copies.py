"""Photographs that are one photograph: turned, mirrored, made brighter, rescaled or compressed anew.

They are found by small pictures of the whole photograph, and by the names that augmentation programs give. What was
turned by a few degrees or cropped is only found by its name, and so are several views of one leaf.

Of 2,812 photographs of leaves (PlantVillage) no two different ones are alike by more than 0.963, in any of eight
orientations; copies turned by 90 degrees, mirrored, at a third of the size or at JPEG quality 20 are alike by 0.982 and
more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
from PIL import Image

THUMBNAIL_SIDE = 16  # px
ALIKE = 0.98  # the correlation of two thumbnails, from -1 to 1, from which on they are one photograph
FLATTEST = 2.0  # levels: the standard deviation below which a thumbnail shows nothing to compare
LOW_FREQUENCIES = 6  # of each axis: enough to tell photographs apart before they are compared
NEIGHBOURS = 8  # that each photograph is compared with: a thousand equal frames need no half a million comparisons
PAIRS_AT_ONCE = 4096
# A view every ten degrees. More photographs whose names differ by a number only are numbered, and no copies.
MOST_BY_NAME = 36
# "leaf_90deg", "leaf_new30degFlipLR", "leaf-rotated2", "leaf_view3", "leaf_jpg.rf.0123abcd" -> "leaf". "leaf_view_007"
# bears a number, and no mark.
MARKS = re.compile(
    r"[\s_.-]+(?:(?:new)?\d+_?deg(?:rees?)?|flip(?:ped)?(?:_?(?:lr|tb|ud|h|v|horizontal|vertical))?|[hv]flip|rotated?_?\d*"
    r"|mirror(?:ed)?|augmented_?\d*|(?:view|angle)_?(?!0\d\d)\d{1,3}|[\s_.-]+)+$|(?:_(?:jpe?g|png))?\.rf\.[0-9a-f]+$",
    re.IGNORECASE,
)

Thumbnails = npt.NDArray[np.uint8]  # (N, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)


def thumbnail(photograph: Image.Image) -> npt.NDArray[np.uint8]:
    """Returns a small square picture of a whole RGB photograph, (THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)."""
    return np.array(photograph.resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX))


def groups_of_near_copies(by_look: Iterable[Sequence[int]], names: Sequence[str]) -> list[list[int]]:
    """Returns groups of two or more photographs that are one, by their look or by their names, as sorted indices.

    Args:
        by_look: groups that look alike; see `groups_by_look`.
        names: the paths of the photographs; see `unmarked`.
    """
    pairs = (pair for group in by_look for pair in pairwise(group))
    return joined(len(names), [*pairs, *_named_alike(names)])


def groups_by_look(thumbnails: Thumbnails) -> list[list[int]]:
    """Returns groups of two or more photographs that look alike, as sorted indices; 20,000 take 10 to 25 s."""
    return joined(len(thumbnails), _alike(thumbnails))


def unmarked(name: str) -> str:
    """Returns a file's path without its suffix, the marks of augmentation programs and the numbers of views."""
    path = PurePosixPath(name)
    return f"{path.parent}/{MARKS.sub('', path.stem)}"


def _named_alike(names: Sequence[str]) -> Iterable[tuple[int, int]]:
    """Yields pairs of photographs of which at least one bears a mark, and which are called the same without."""
    called: dict[str, list[int]] = defaultdict(list)
    marked = {unmarked(name) for name in names if MARKS.search(PurePosixPath(name).stem)}
    for index, name in enumerate(names):
        if (plain := unmarked(name)) in marked:
            called[plain].append(index)
    for members in called.values():
        if len(members) <= MOST_BY_NAME:
            yield from pairwise(members)


def _alike(thumbnails: Thumbnails) -> list[tuple[int, int]]:
    """Returns pairs of photographs that look alike in one of the eight orientations of a square."""
    values = thumbnails.astype(np.float32)
    values -= values.mean(axis=(1, 2), keepdims=True)  # of each colour
    values = values.reshape(len(thumbnails), -1)
    telling = np.flatnonzero(values.std(axis=1) >= FLATTEST)
    if len(telling) < 2:
        return []
    values = values[telling] / np.linalg.norm(values[telling], axis=1, keepdims=True)
    pictures = values.reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    from scipy.spatial import cKDTree  # half a second to import

    signs = _signatures(pictures)
    # Unit vectors of this correlation are this far apart; their signatures are no farther.
    radius = float(np.sqrt(2 * (1 - ALIKE)))
    near = cKDTree(signs).query(signs, k=min(NEIGHBOURS + 1, len(signs)), distance_upper_bound=radius)[1]
    mine, others = np.repeat(np.arange(len(signs)), near.shape[1]), near.ravel()
    candidates = np.stack([mine, others], axis=1)[(others < len(signs)) & (mine != others)]
    found = []
    for start in range(0, len(candidates), PAIRS_AT_ONCE):
        chunk = candidates[start : start + PAIRS_AT_ONCE]
        found += chunk[_correlations(pictures[chunk[:, 0]], pictures[chunk[:, 1]]) >= ALIKE].tolist()
    return [(int(telling[one]), int(telling[other])) for one, other in found]


def _signatures(pictures: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns the sizes of the lowest frequencies of grey pictures, (N, F), the same in all eight orientations.

    Mirroring changes only the signs of a cosine transform, and turning exchanges its axes as well.
    """
    from scipy.fft import dctn

    grey = pictures.sum(axis=3) / np.sqrt(3.0)  # a projection, so that distances do not grow
    sizes = np.abs(dctn(grey, axes=(1, 2), norm="ortho"))[:, :LOW_FREQUENCIES, :LOW_FREQUENCIES]
    turned = sizes.transpose(0, 2, 1)
    upper = np.triu(np.ones((LOW_FREQUENCIES, LOW_FREQUENCIES), dtype=bool))
    above = np.triu(upper, 1)
    signatures = np.concatenate([np.maximum(sizes, turned)[:, upper], np.minimum(sizes, turned)[:, above]], axis=1)
    return np.asarray(signatures, dtype=np.float32)


def _correlations(ones: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Returns the highest correlation of each pair of pictures over the eight orientations, (P,)."""
    best = np.full(len(ones), -1.0, dtype=np.float32)
    for mirrored in (others, others[:, :, ::-1]):
        for turns in range(4):
            turned = np.rot90(mirrored, turns, axes=(1, 2))
            best = np.maximum(best, np.einsum("nhwc,nhwc->n", ones, turned))
    return best


def joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Returns the groups of two or more that pairs of the numbers below `count` make, in their order."""
    leader = list(range(count))

    def leader_of(index: int) -> int:
        while leader[index] != index:
            leader[index] = leader[leader[index]]
            index = leader[index]
        return index

    for one, other in pairs:
        first, second = sorted((leader_of(one), leader_of(other)))
        leader[second] = first
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(count):
        members[leader_of(index)].append(index)
    return [group for group in members.values() if len(group) > 1]
