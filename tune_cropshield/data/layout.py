"""What the sub-folders of a data folder mean: classes, a given split of classes, or something that must be asked about.

healthy/1.jpg, rust/2.jpg                     classes; folders inside a class belong to it
train/healthy/1.jpg, val/healthy/2.jpg        a given split (also called training, valid, validation, testing ...)
healthy/train/1.jpg, healthy/val/2.jpg        the same
color/healthy/1.jpg, gray/healthy/1.jpg       refused: variants of one data set, or its folds
apple/scab/1.jpg, corn/rust/2.jpg             refused: crops with diseases; `class_depth` says what the classes are
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cropshield.config.units import counted
from tune_cropshield.data.split import TEST, TRAIN, VAL
from tune_cropshield.errors import DataError

EXPECTED = "expected one sub-folder per class, as in DATA/healthy/1.jpg and DATA/rust/2.jpg"
SIDES = {
    **dict.fromkeys(("train", "training", "trainset", "trainingset", "trn"), TRAIN),
    **dict.fromkeys(("val", "valid", "validation", "validate", "valset", "validationset", "dev", "devset"), VAL),
    **dict.fromkeys(("test", "testing", "testset", "tst", "holdout"), TEST),
}
FILLERS = {"set", "data", "dataset", "images", "image", "imgs", "img", "photos", "photographs", "pictures", "split"}
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
# "batch1", "2024-05-01", "session_2", "101MSDCF": parts of a class, as a camera or a photographer names them.
NUMBERED = re.compile(
    r"(batch|part|session|series|set|day|week|month|visit|camera|cam|plot|field|row|plant|img|images?|photos?|folder"
    r"|dir|roll|page|[a-z])?[\W_]*\d[\d\W_]*|\d{3}[a-z0-9_]{5}",
    re.IGNORECASE,
)
FOLD = re.compile(r"(cv|k)?[\W_]*(fold|split)[\W_]*\d+", re.IGNORECASE)
_VARIANTS = """
    color colour rgb gray grey grayscale greyscale segmented segmentation masks mask raw original originals
    augmented processed preprocessed cropped resized enhanced labels annotations
"""
VARIANTS = frozenset(_VARIANTS.split())
OFFERED_AT_MOST = 5  # choices in a message


@dataclass(frozen=True)
class Layout:
    """Which parts of a photograph's path name its class, and which names its side of a given split, if any."""

    class_parts: tuple[int, ...]
    side_part: int | None = None

    def place(self, path: str) -> tuple[str, str | None] | None:
        """Returns the class and the side of a photograph; None where it lies in no class folder."""
        folders = path.split("/")[:-1]
        if len(folders) <= max(*self.class_parts, self.side_part or 0):
            return None
        side = side_of(folders[self.side_part]) if self.side_part is not None else None
        if self.side_part is not None and side is None:
            return None
        return "/".join(folders[part] for part in self.class_parts), side


def side_of(name: str) -> str | None:
    """Returns the side of a split that a folder is named after, as "Training Set" is after train; None for others."""
    words = re.findall(r"[a-z]+|\d+", name.lower())
    meant = [word for word in words if word not in FILLERS] if len(words) > 1 else words
    return SIDES.get("".join(meant))


def find_layout(root: Path, photographs: Mapping[str, Sequence[str]], class_depth: int | None) -> Layout:
    """Returns what the sub-folders of `root` mean.

    Args:
        photographs: each sub-folder's name, with the paths of its photographs, relative to `root`; none is empty.
        class_depth: 1 or 2 where it was said how many folders make a class's name; with 2, train/apple/scab and
            val/apple/scab are a given split, with 1 train and val are classes.

    Raises:
        DataError: it cannot be told, or the folders are no classes; with what to give instead.
    """
    if class_depth is not None:
        named = [side_of(name) for name in photographs]
        is_split = None not in named and TRAIN in named and len(set(named)) == len(named) > 1
        return Layout((1, 2), 0) if is_split and class_depth == 2 else Layout(tuple(range(class_depth)))
    tops = {name: _Top.of(paths) for name, paths in sorted(photographs.items())}
    if len(tops) == 1:
        return Layout((0,))
    sides = {name: side for name in tops if (side := side_of(name)) is not None}
    if len(sides) == len(tops):
        return _split_outside(root, tops, sides)
    inside = [_sides(top) for top in tops.values() if not top.direct]
    if len(inside) == len(tops) and all(inside) and any(len(found) > 1 for found in inside):
        return Layout((0,), 1)
    _refuse_what_are_no_classes(root, tops, sides)
    return Layout((0,))


@dataclass(frozen=True)
class _Top:
    """A sub-folder: how many photographs lie directly in it, and in each folder inside it."""

    direct: int
    inner: Counter[str]

    @staticmethod
    def of(paths: Sequence[str]) -> _Top:
        inner = Counter(path.split("/")[1] for path in paths if path.count("/") > 1)
        return _Top(len(paths) - inner.total(), inner)

    @property
    def named(self) -> set[str]:
        """The folders inside that are not merely numbered or dated."""
        return {name for name in self.inner if not NUMBERED.fullmatch(name) and name.lower()[:3] not in MONTHS}


def _sides(top: _Top) -> list[str]:
    """Returns the sides that all the folders inside are named after; none where one is named otherwise."""
    sides = [side_of(name) for name in top.inner]
    return [side for side in sides if side is not None] if None not in sides else []


def _split_outside(root: Path, tops: Mapping[str, _Top], sides: Mapping[str, str]) -> Layout:
    """Returns the layout of train/CLASS/1.jpg, val/CLASS/2.jpg."""
    twice = [name for name in sides if list(sides.values()).count(sides[name]) > 1]
    if twice:
        raise DataError(f"{str(root)!r} holds {' and '.join(twice)}, which are one side of a split; keep one of them")
    names = {side: name for name, side in sides.items()}
    if TRAIN not in names:
        raise DataError(
            f"{str(root)!r} holds {' and '.join(names.values())}, but nothing to train on; {_choices(root, tops)}"
        )
    classes, lie = tops[names[TRAIN]].inner, tops[names[TRAIN]].direct
    if len(classes) < 2:
        loose = f"; {counted(lie, 'photograph')} {'lies' if lie == 1 else 'lie'} directly in it" if lie else ""
        raise DataError(
            f"at least two classes are needed, but {str(root / names[TRAIN])!r} has {len(classes)}{loose}; a given "
            "split is laid out as in DATA/train/healthy/1.jpg and DATA/val/healthy/2.jpg"
        )
    return Layout((1,), 0)


def _refuse_what_are_no_classes(root: Path, tops: Mapping[str, _Top], sides: Mapping[str, str]) -> None:
    """Raises DataError for sub-folders that look like something else than classes."""
    with_folders = {name: top for name, top in tops.items() if len(top.inner) > 1}
    counts = Counter(name for top in with_folders.values() for name in top.inner)
    shared = sorted(name for name, count in counts.items() if count > 1)
    anyway = f"if {_listed(sorted(tops))} are the classes, say class_depth = 1 under [data]"
    alike = [name for name, top in with_folders.items() if len(set(shared) & set(top.inner)) > 1]
    telling = [name for name in shared if name in set().union(*(top.named for top in tops.values()))]
    by_name = [name for name in alike if FOLD.fullmatch(name) or name.lower() in VARIANTS]
    pairs = [f"{name}/{inner}" for name, top in tops.items() if not top.direct for inner in sorted(top.inner)]
    if len(alike) > 1 and (len(telling) > 1 or len(by_name) > 1):
        given = " (train and val alone, with test or without, are taken as a given split)" if sides else ""
        or_crops, as_crops = "", ""
        if pairs and not sides and not by_name:
            or_crops = ", or crops,"
            as_crops = f"if they are crops with the classes {_listed(pairs)}, say class_depth = 2 under [data]; "
        raise DataError(
            f"{_listed(alike)} in {str(root)!r} hold folders of the same names ({_listed(shared)}), so they are "
            f"variants or parts of one data set{or_crops} and no classes: "
            f"{_choices(root, with_folders)}{given}; {as_crops}{anyway}"
        )
    beside = {name: sorted(set(top.inner) & (tops.keys() - {name})) for name, top in tops.items()}
    doubled = next((name for name, same in beside.items() if len(same) > 1 or (same and name in sides)), None)
    if doubled is not None:
        raise DataError(
            f"{str(root / doubled)!r} holds folders named like the classes beside it ({_listed(beside[doubled])}): "
            f"move it out of {str(root)!r}; {anyway}"
        )
    if sides:
        raise DataError(
            f"{_listed(sorted(sides))} in {str(root)!r} is named like a side of a split, "
            f"{_listed(sorted(tops.keys() - sides.keys()))} beside it is not: keep either classes or a split in one "
            f"folder, or {_choices(root, with_folders) if with_folders else 'move it out'}; {anyway}"
        )
    crops = {name: top for name, top in with_folders.items() if not top.direct and len(top.named) > 1}
    if len(crops) > 1:
        raise DataError(
            f"{_listed(sorted(crops))} in {str(root)!r} hold folders with photographs of their own: "
            f"{_choices(root, crops)}; for all of them with the classes {_listed(pairs)}, say class_depth = 2 under "
            f"[data]; {anyway}"
        )


def deeper(root: Path, paths: Sequence[str]) -> str | None:
    """Returns the folder that was probably meant where `root` holds one sub-folder only; None if there is none.

    paths: of the photographs, relative to `root`.
    """
    folders = [path.split("/")[:-1] for path in paths]
    depth = 0
    while True:
        if any(len(parts) <= depth for parts in folders):
            return None
        names = {parts[depth] for parts in folders}
        if len(names) > 1:
            return str(root.joinpath(*folders[0][:depth])) if depth else None
        depth += 1


def _choices(root: Path, tops: Mapping[str, _Top]) -> str:
    """Returns the folders to give instead, with what they hold."""
    offers = [
        f"--data {root / name} ({counted(len(top.inner), 'folder')}, "
        f"{counted(top.direct + top.inner.total(), 'photograph')})"
        for name, top in list(tops.items())[:OFFERED_AT_MOST]
    ]
    more = len(tops) - OFFERED_AT_MOST
    return f"give {' or '.join(offers)}" + (f" or one of {more} more" if more > 0 else "")


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:OFFERED_AT_MOST])
    if len(names) > OFFERED_AT_MOST:
        shown.append(f"{len(names) - OFFERED_AT_MOST} more")
    return ", ".join(shown[:-1]) + (" and " if len(shown) > 1 else "") + shown[-1]
