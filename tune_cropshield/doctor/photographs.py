"""How the photographs are: classes and their sizes, images' sizes, files that are broken or there twice."""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tune_cropshield.config.settings import DataConfig, Fit
from tune_cropshield.data.background import Background, background_of
from tune_cropshield.data.decode import DecodeError, decode_rgb
from tune_cropshield.data.folder import ListedFolder
from tune_cropshield.data.groups import grouping_of
from tune_cropshield.data.left_out import LeftOut
from tune_cropshield.data.long_photographs import long_photographs_lines
from tune_cropshield.data.near_copies import THUMBNAIL_SIDE, groups_by_look, groups_of_near_copies, thumbnail
from tune_cropshield.data.sources import list_photographs
from tune_cropshield.data.split import TRAIN, VAL
from tune_cropshield.errors import DataError

CHUNK = 64  # files between two looks at the clock


@dataclass(frozen=True)
class Look:
    """What was seen of a whole photograph. size: width and height in px."""

    size: tuple[int, int]
    thumbnail: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Photographs:
    """The state of a folder of photographs."""

    folder: str
    classes: dict[str, int]  # name -> files, without those that are broken
    files: int  # the broken ones among them
    looked_at: int  # how many, of a random order, were decoded
    broken: tuple[tuple[str, str], ...]  # (path, reason) of those
    smallest: tuple[int, int] | None  # width, height in px of those that are whole
    median: tuple[int, int] | None
    largest: tuple[int, int] | None
    long: tuple[str, ...]  # what a crop to a square leaves out, where that is much
    copies: tuple[tuple[str, ...], ...]  # groups of paths with the same bytes
    files_compared: bool  # False where time ran out before all files of equal length were read
    across_classes: int  # groups of copies that lie in more than one class
    near_copies: tuple[tuple[str, ...], ...]  # groups of paths of one photograph, turned, mirrored, rescaled ...
    left_out: tuple[LeftOut, ...]  # what lies in the folder and is not used
    validation: dict[str, int]  # class -> photographs that a search would validate on
    given_split: bool  # the validation photographs are given
    notes: tuple[str, ...] = ()  # how labels were read, where a table holds them
    background: Background | None = None  # what the borders of those looked at tell; None where they are too few

    @property
    def imbalance(self) -> float:
        """How many times as many files the largest class has as the smallest."""
        return max(self.classes.values()) / min(self.classes.values())


def examine_photographs(data: DataConfig, seconds: float, threads: int, fits: Iterable[Fit] = ()) -> Photographs:
    """Returns the state of the photographs of `data`, in about `seconds`: what that is too short for is said.

    Args:
        fits: how photographs may become squares, where it is more than one way; left out, that of `data`.

    Raises:
        DataError: a search would not train on them.
    """
    listed = list_photographs(data)
    root = listed.root
    sizes = [(image.path, image.size) for image, _, _ in listed.images]
    class_of = {image.path: label for image, label, _ in listed.images}
    until = time.perf_counter() + seconds / 3
    copies, compared = _copies(root, sizes, until)
    looks = _look(root, [path for path, _ in sizes], time.perf_counter() + seconds * 2 / 3, threads)
    sound = sorted(path for path, look in looks.items() if isinstance(look, Look))
    sides = sorted((look.size for look in looks.values() if isinstance(look, Look)), key=lambda side: side[0] * side[1])
    broken = dict(sorted((path, look) for path, look in looks.items() if isinstance(look, str)))
    classes = {
        name: sum(image.path not in broken for image in listed.of_class(label))
        for label, name in enumerate(listed.classes)
    }
    if emptied := [name for name, count in classes.items() if not count]:
        first = next(path for path in broken if listed.classes[class_of[path]] in emptied)
        raise DataError(
            f"no photograph of {', '.join(map(repr, emptied))} in {str(root)!r} can be read: {first} ({broken[first]})"
        )
    identical = {path: group[0] for group in copies for path in group}
    small = [look.thumbnail for path in sound if isinstance(look := looks[path], Look)]
    thumbnails = np.array(small, dtype=np.uint8).reshape(-1, THUMBNAIL_SIDE, THUMBNAIL_SIDE, 3)
    names = [listed.layout.without_side(path) for path in sound]
    by_look = groups_by_look(thumbnails)
    near = groups_of_near_copies(by_look, names)
    keys = grouping_of(data.group, sound, listed.layout, sound, by_look, listed.said).keys
    groups = [tuple(sound[index] for index in group) for group in near]
    return Photographs(
        folder=data.place,
        classes=classes,
        files=len(sizes),
        looked_at=len(looks),
        broken=tuple(broken.items()),
        smallest=sides[0] if sides else None,
        median=(int(statistics.median(w for w, _ in sides)), int(statistics.median(h for _, h in sides)))
        if sides
        else None,
        largest=sides[-1] if sides else None,
        long=tuple(long_photographs_lines(sides)) if (set(fits) or {data.fit}) == {"crop"} else (),
        copies=tuple(copies),
        files_compared=compared,
        across_classes=sum(len({class_of[path] for path in group}) > 1 for group in copies),
        near_copies=tuple(group for group in groups if len({identical.get(path, path) for path in group}) > 1),
        left_out=listed.left_out,
        validation=_validation(listed, broken, data),
        given_split=any(side == VAL for _, _, side in listed.images),
        notes=listed.notes,
        background=background_of(thumbnails, [class_of[path] for path in sound], keys, near),
    )


def _validation(listed: ListedFolder, broken: Collection[str], data: DataConfig) -> dict[str, int]:
    """Returns how many photographs of each class a search would validate on, if none were identical.

    Of groups that a table, folders or paths name, that many of its mean size.
    """
    whole = [(image.path, label, side) for image, label, side in listed.images if image.path not in broken]
    given = Counter(label for _, label, side in whole if side == VAL)
    trained = [(path, label) for path, label, side in whole if side in (None, TRAIN)]
    paths = [path for path, _ in trained]
    found = grouping_of(data.group, paths, listed.layout, paths, [], listed.said)
    keys = found.keys if found.named else paths
    groups: dict[int, set[str]] = defaultdict(set)
    for (_, label), key in zip(trained, keys, strict=True):
        groups[label].add(key)
    photographs = Counter(label for _, label in trained)
    validated = {
        label: max(int(len(of) * data.val_share + 0.5), 1) * photographs[label] / len(of)
        for label, of in groups.items()
    }
    return {
        name: given[label] if given else int(validated.get(label, 1) + 0.5) for label, name in enumerate(listed.classes)
    }


def _copies(root: Path, sizes: Iterable[tuple[str, int]], until: float) -> tuple[list[tuple[str, ...]], bool]:
    """Returns the groups of files with equal bytes, and whether there was time for all.

    Only files of one length are read.
    """
    by_length: dict[int, list[str]] = defaultdict(list)
    for path, length in sizes:
        by_length[length].append(path)
    groups: list[tuple[str, ...]] = []
    for length, paths in by_length.items():
        if len(paths) == 1 or length == 0:  # empty files are broken, not copies
            continue
        if time.perf_counter() > until:
            return sorted(groups), False
        by_content: dict[bytes, list[str]] = defaultdict(list)
        for path in paths:
            try:
                by_content[hashlib.sha256((root / path).read_bytes()).digest()].append(path)
            except OSError:
                continue  # told among the broken ones
        groups += [tuple(sorted(same)) for same in by_content.values() if len(same) > 1]
    return sorted(groups), True


def _look(root: Path, paths: list[str], until: float, threads: int) -> dict[str, Look | str]:
    """Decodes files in a random order, the same each time, until the time is up.

    Returns what was seen of each, and the reason for a broken one.
    """
    random.Random(0).shuffle(paths)
    done: dict[str, Look | str] = {}
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            if done and time.perf_counter() > until:
                break
            done.update(zip(chunk, pool.map(lambda path: _look_at(root / path), chunk), strict=True))
    return done


def _look_at(path: Path) -> Look | str:
    try:
        photograph = decode_rgb(path)
    except DecodeError as error:
        return str(error)
    return Look(photograph.size, thumbnail(photograph))


def most_common_side(photographs: Photographs) -> str:
    """Returns the usual size in words: "256 x 256 px", with the range where they differ."""
    if photographs.median is None or photographs.smallest is None or photographs.largest is None:
        return "none could be read"
    usual = f"{photographs.median[0]} x {photographs.median[1]} px"
    if photographs.smallest == photographs.largest:
        return f"all {usual}"
    small, large = photographs.smallest, photographs.largest
    return f"median {usual}, from {small[0]} x {small[1]} to {large[0]} x {large[1]}"
