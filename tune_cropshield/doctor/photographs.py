"""How the photographs are: classes and their sizes, images' sizes, files that are broken or there twice."""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tune_cropshield.data.decode import DecodeError, decode_rgb
from tune_cropshield.data.folder import list_folder

CHUNK = 64  # files between two looks at the clock


@dataclass(frozen=True)
class Photographs:
    """The state of a folder of photographs."""

    folder: str
    classes: dict[str, int]  # name -> files
    files: int
    looked_at: int  # how many, of a random order, were decoded
    broken: tuple[tuple[str, str], ...]  # (path, reason) of those
    smallest: tuple[int, int] | None  # width, height in px of those that are whole
    median: tuple[int, int] | None
    largest: tuple[int, int] | None
    copies: tuple[tuple[str, ...], ...]  # groups of paths with the same bytes
    files_compared: bool  # False where time ran out before all files of equal length were read
    across_classes: int  # groups of copies that lie in more than one class

    @property
    def imbalance(self) -> float:
        """How many times as many files the largest class has as the smallest."""
        return max(self.classes.values()) / min(self.classes.values())


def examine_photographs(root: Path, seconds: float, threads: int) -> Photographs:
    """Returns the state of the photographs in `root`, in about `seconds`: what that is too short for is said.

    Raises:
        DataError: a search would not train on them.
    """
    listed = list_folder(root)
    sizes = [(image.path, image.size) for image, _, _ in listed.images]
    class_of = {image.path: label for image, label, _ in listed.images}
    until = time.perf_counter() + seconds / 3
    copies, compared = _copies(root, sizes, until)
    looked_at, sides, broken = _look(root, [path for path, _ in sizes], time.perf_counter() + seconds * 2 / 3, threads)
    sides.sort(key=lambda side: side[0] * side[1])
    return Photographs(
        folder=str(root),
        classes={name: len(listed.of_class(label)) for label, name in enumerate(listed.classes)},
        files=len(sizes),
        looked_at=looked_at,
        broken=tuple(sorted(broken)),
        smallest=sides[0] if sides else None,
        median=(int(statistics.median(w for w, _ in sides)), int(statistics.median(h for _, h in sides)))
        if sides
        else None,
        largest=sides[-1] if sides else None,
        copies=tuple(copies),
        files_compared=compared,
        across_classes=sum(len({class_of[path] for path in group}) > 1 for group in copies),
    )


def _copies(root: Path, sizes: Iterable[tuple[str, int]], until: float) -> tuple[list[tuple[str, ...]], bool]:
    """Returns the groups of files with equal bytes, and whether there was time for all.

    Only files of one length are read.
    """
    by_length: dict[int, list[str]] = defaultdict(list)
    for path, length in sizes:
        by_length[length].append(path)
    groups: list[tuple[str, ...]] = []
    for paths in by_length.values():
        if len(paths) == 1:
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


def _look(
    root: Path, paths: list[str], until: float, threads: int
) -> tuple[int, list[tuple[int, int]], list[tuple[str, str]]]:
    """Decodes files in a random order, the same each time, until the time is up.

    Returns how many, the sides of sound ones, and the broken ones.
    """
    random.Random(0).shuffle(paths)
    done: list[tuple[str, tuple[int, int] | str]] = []
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, len(paths), CHUNK):
            chunk = paths[start : start + CHUNK]
            if done and time.perf_counter() > until:
                break
            done += zip(chunk, pool.map(lambda path: _side_or_reason(root / path), chunk), strict=True)
    sides = [found for _, found in done if not isinstance(found, str)]
    return len(done), sides, [(path, found) for path, found in done if isinstance(found, str)]


def _side_or_reason(path: Path) -> tuple[int, int] | str:
    try:
        return decode_rgb(path).size
    except DecodeError as error:
        return str(error)


def most_common_side(photographs: Photographs) -> str:
    """Returns the usual size in words: "256 x 256 px", with the range where they differ."""
    if photographs.median is None or photographs.smallest is None or photographs.largest is None:
        return "none could be read"
    usual = f"{photographs.median[0]} x {photographs.median[1]} px"
    if photographs.smallest == photographs.largest:
        return f"all {usual}"
    small, large = photographs.smallest, photographs.largest
    return f"median {usual}, from {small[0]} x {small[1]} to {large[0]} x {large[1]}"
