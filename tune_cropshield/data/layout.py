"""What the sub-folders of a data folder mean: classes, a given split of classes, or something that must be asked about.

healthy/1.jpg, rust/2.jpg                     classes; folders inside a class belong to it
train/healthy/1.jpg, val/healthy/2.jpg        a given split (also called training, valid, validation, testing ...)
healthy/train/1.jpg, healthy/val/2.jpg        the same
color/healthy/1.jpg, gray/healthy/1.jpg       refused: variants of one data set, or its folds
apple/scab/1.jpg, corn/rust/2.jpg             refused, inside a split too: crops with diseases; `class_depth` says
                                              which folders are the classes
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
from tune_cropshield.files import printable

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
    """Which parts of a photograph's path name its class, and which names its side of a given split, if any.

    side_folders: where the sides lie in folders of any name, how the paths of each begin, as in "photos/2024/".
    """

    class_parts: tuple[int, ...]
    side_part: int | None = None
    side_folders: tuple[str, ...] = ()

    def place(self, path: str) -> tuple[str, str | None] | None:
        """Returns the class and the side of a photograph; None where it lies in no class folder.

        A class bears its folder's name, as it is `printable`.
        """
        folders = path.split("/")[:-1]
        if len(folders) <= max(*self.class_parts, self.side_part or 0):
            return None
        side = side_of(folders[self.side_part]) if self.side_part is not None else None
        if self.side_part is not None and side is None:
            return None
        return printable("/".join(folders[part] for part in self.class_parts)), side

    def without_side(self, path: str) -> str:
        """Returns a path without the folder that names its side of a given split: CLASS/..."""
        for folder in self.side_folders:
            if path.startswith(folder):
                return path.removeprefix(folder)
        parts = path.split("/")
        return "/".join(name for part, name in enumerate(parts) if part != self.side_part)


NO_FOLDERS = Layout(())  # of photographs whose labels stand in a table: no folder means anything


def side_of(name: str) -> str | None:
    """Returns the side of a split that a folder is named after, as "Training Set" is after train; None for others."""
    words = re.findall(r"[a-z]+|\d+", name.lower())
    meant = [word for word in words if word not in FILLERS] if len(words) > 1 else words
    return SIDES.get("".join(meant))


def find_layout(root: Path, paths: Sequence[str], class_depth: int | None) -> Layout:
    """Returns what the sub-folders of `root` mean.

    Args:
        paths: of the photographs that lie in sub-folders, relative to `root`.
        class_depth: 1 or 2 where it was said how many folders make a class's name. Those that name the sides of a split
            are not counted: with 1, train/apple/scab/1.jpg is of the class apple, with 2 of apple/scab.

    Raises:
        DataError: it cannot be told, or the folders are no classes; with what to give instead.
    """
    side_part = _side_part(root, paths, class_depth or 1)
    if class_depth is None:
        _refuse_what_are_no_classes(root, paths, side_part)
    parts = [part for part in range(3) if part != side_part]
    return Layout(tuple(parts[: class_depth or 1]), side_part)


@dataclass(frozen=True)
class _Top:
    """A folder that may be a class: how many photographs lie directly in it, and in each folder inside it."""

    direct: int
    inner: Counter[str]

    @property
    def named(self) -> set[str]:
        """The folders inside that are not merely numbered or dated."""
        return {name for name in self.inner if not NUMBERED.fullmatch(name) and name.lower()[:3] not in MONTHS}

    @property
    def in_named(self) -> int:
        """How many photographs lie in those."""
        return sum(self.inner[name] for name in self.named)


def _tops(paths: Sequence[str], side_part: int | None) -> dict[str, _Top]:
    """Returns the folders that may be classes, by name: the outermost ones that do not name a side of a split."""
    direct: Counter[str] = Counter()
    inner: dict[str, Counter[str]] = {}
    for path in paths:
        folders = path.split("/")[:-1]
        if side_part is not None:
            del folders[side_part : side_part + 1]
        if not folders:  # directly in train/
            continue
        counts = inner.setdefault(folders[0], Counter())
        if len(folders) == 1:
            direct[folders[0]] += 1
        else:
            counts[folders[1]] += 1
    return {name: _Top(direct[name], counts) for name, counts in sorted(inner.items())}


def _side_part(root: Path, paths: Sequence[str], class_depth: int) -> int | None:
    """Returns which part of the paths names the side of a given split: 0 in train/rust/1.jpg; None without a split."""
    folders = [path.split("/")[:-1] for path in paths]
    tops = {parts[0] for parts in folders}
    if len(tops) > 1 and all(side_of(name) is not None for name in tops):
        _check_split_outside(root, paths, class_depth)
        return 0
    for part in range(1, class_depth + 1):
        inside = [parts for parts in folders if len(parts) > part]
        found: dict[tuple[str, ...], set[str]] = {}  # the sides in each folder
        for parts in inside:
            found.setdefault(tuple(parts[:part]), set()).add(parts[part])
        if not all(side_of(name) is not None for names in found.values() for name in names):
            continue
        split = next((folder for folder, names in found.items() if len(names) > 1), None)
        if split is None:
            continue
        loose = [path for path, parts in zip(paths, folders, strict=True) if len(parts) <= part]
        if loose:
            lie, them = ("lies", "it") if len(loose) == 1 else ("lie", "them")
            raise DataError(
                f"{_listed(sorted(found[split]))} in {str(root.joinpath(*split))!r} are parts of a split, but "
                f"{counted(len(loose), 'photograph')} of {str(root)!r} {lie} in none, as "
                f"{printable(loose[0])}: move {them} to one, or out of the folder"
            )
        return part
    return None


def _check_split_outside(root: Path, paths: Sequence[str], class_depth: int) -> None:
    """Raises DataError where train/CLASS/1.jpg, val/CLASS/2.jpg is not whole."""
    tops = _tops(paths, None)
    sides = {name: side for name in tops if (side := side_of(name)) is not None}
    twice = [name for name in sides if list(sides.values()).count(sides[name]) > 1]
    if twice:
        raise DataError(
            f"{str(root)!r} holds {' and '.join(twice)}, which mean the same part of a split; keep one of them"
        )
    names = {side: name for name, side in sides.items()}
    if TRAIN not in names:
        raise DataError(
            f"{str(root)!r} holds {' and '.join(names.values())}, but nothing to train on; {_choices(root, tops)}"
        )
    classes, lie = tops[names[TRAIN]].inner, tops[names[TRAIN]].direct
    if len(classes) >= 2 or class_depth > 1:
        return
    loose = f"; {counted(lie, 'photograph')} {'lies' if lie == 1 else 'lie'} directly in it" if lie else ""
    within = _tops([path for path in paths if path.startswith(f"{names[TRAIN]}/")], 0)
    pairs = _pairs(within)
    two_deep = f"; for the classes {_listed(pairs)}, set class_depth = 2 in [data]" if len(pairs) > 1 else ""
    raise DataError(
        f"at least two classes are needed, but {str(root / names[TRAIN])!r} has {len(classes)}{loose}{two_deep}; a "
        "given split is laid out as in DATA/train/healthy/1.jpg and DATA/val/healthy/2.jpg"
    )


def _refuse_what_are_no_classes(root: Path, paths: Sequence[str], side_part: int | None) -> None:
    """Raises DataError for folders that look like something else than classes."""
    tops = _tops(paths, side_part)
    if len(tops) == 1:  # too few for classes, whatever they are
        return
    sides = {name: side for name in tops if (side := side_of(name)) is not None}
    with_folders = {name: top for name, top in tops.items() if len(top.inner) > 1}
    counts = Counter(name for top in with_folders.values() for name in top.inner)
    shared = sorted(name for name, count in counts.items() if count > 1)
    of_split = "" if side_part is None else "the split of "
    anyway = f"if {_listed(sorted(tops))} are the classes, set class_depth = 1 in [data]"
    # Inside a split, no folder to give instead holds more than one side of it.
    give = f"{_choices(root, with_folders)}; " if side_part is None and with_folders else ""
    pairs = _pairs(tops)
    alike = [name for name, top in with_folders.items() if len(set(shared) & set(top.inner)) > 1]
    telling = [name for name in shared if name in set().union(*(top.named for top in tops.values()))]
    by_name = [name for name in alike if FOLD.fullmatch(name) or name.lower() in VARIANTS]
    if len(alike) > 1 and (len(telling) > 1 or len(by_name) > 1):
        given = " (train and val alone, with test or without, are taken as a given split)" if sides else ""
        or_crops, as_crops = "", ""
        if not sides and not by_name:
            or_crops = ", or crops,"
            as_crops = f"if they are crops with the classes {_listed(pairs)}, {_two_deep(tops)}; "
        raise DataError(
            f"{_listed(alike)} in {of_split}{str(root)!r} hold folders of the same names ({_listed(shared)}), so they "
            f"are variants or parts of one data set{or_crops} and not classes: "
            f"{give.removesuffix('; ') or 'keep one of them'}{given}; {as_crops}{anyway}"
        )
    beside = {name: sorted(set(top.inner) & (tops.keys() - {name})) for name, top in tops.items()}
    doubled = next((name for name, same in beside.items() if len(same) > 1 or (same and name in sides)), None)
    if doubled is not None:
        where = str(root / doubled) if side_part is None else doubled
        raise DataError(
            f"{where!r} {'' if side_part is None else f'in {of_split}{str(root)!r} '}holds folders named like the "
            f"classes beside it ({_listed(beside[doubled])}): move it out of {str(root)!r}; {anyway}"
        )
    if sides:
        raise DataError(
            f"{_listed(sorted(sides))} in {of_split}{str(root)!r} is named like a part of a split, "
            f"{_listed(sorted(tops.keys() - sides.keys()))} beside it is not: keep either classes or a split in one "
            f"folder, or {give or 'move it out; '}{anyway}"
        )
    if _look_like_crops(tops):
        raise DataError(
            f"{_listed(sorted(name for name, top in tops.items() if top.named))} in {of_split}{str(root)!r} hold "
            f"folders with photographs of their own: {give}for {'all of them with ' if give else ''}the classes "
            f"{_listed(pairs)}, {_two_deep(tops)}; {anyway}"
        )


def _look_like_crops(tops: Mapping[str, _Top]) -> bool:
    """Returns whether the folders inside these may be the classes.

    Either two of these hold several, or one does and each other one holds little else than folders of its own.
    """
    several = [top for top in tops.values() if len(top.named) > 1]
    counts = Counter(name for top in tops.values() for name in top.named)
    own = [top for top in tops.values() if top.in_named > top.direct and any(counts[name] == 1 for name in top.named)]
    return len(several) > 1 or (len(several) == 1 and len(own) == len(tops))


def _pairs(tops: Mapping[str, _Top]) -> list[str]:
    """Returns the classes of which two folders make the name."""
    return [f"{name}/{inner}" for name, top in tops.items() for inner in sorted(top.inner)]


def _two_deep(tops: Mapping[str, _Top]) -> str:
    """Returns how to say that two folders make a class's name, and which photographs are then of no class."""
    loose = {name: top.direct for name, top in tops.items() if top.direct}
    if not loose:
        return "set class_depth = 2 in [data]"
    lie = counted(sum(loose.values()), "photograph")
    return f"set class_depth = 2 in [data] (it leaves out {lie} directly in {_listed(sorted(loose))})"


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
        f"--data {printable(root / name)} ({counted(len(top.inner), 'folder')}, "
        f"{counted(top.direct + top.inner.total(), 'photograph')})"
        for name, top in list(tops.items())[:OFFERED_AT_MOST]
    ]
    more = len(tops) - OFFERED_AT_MOST
    return f"give {' or '.join(offers)}" + (f" or one of {more} more" if more > 0 else "")


def _listed(names: Sequence[str]) -> str:
    shown = [printable(name) for name in names[:OFFERED_AT_MOST]]
    if len(names) > OFFERED_AT_MOST:
        shown.append(f"{len(names) - OFFERED_AT_MOST} more")
    return ", ".join(shown[:-1]) + (" and " if len(shown) > 1 else "") + shown[-1]
