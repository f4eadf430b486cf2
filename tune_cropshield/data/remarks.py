"""What a user should know of the photographs before a network is trained on them."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tune_cropshield.config.settings import Fit
from tune_cropshield.config.units import counted
from tune_cropshield.data.background import background_in
from tune_cropshield.data.class_sizes import (
    always_the_largest_line,
    is_imbalanced,
    reached_by_the_largest,
    sizes_line,
    validation_is_small,
    validation_line,
)
from tune_cropshield.data.dataset import LeafData, given_folds
from tune_cropshield.data.decode import size_in_header
from tune_cropshield.data.folder import THE_FOLDERS, ImageFolder
from tune_cropshield.data.groups import Grouping, parted
from tune_cropshield.data.left_out import left_out_lines
from tune_cropshield.data.long_photographs import long_photographs_lines
from tune_cropshield.data.look_alikes import look_alike_lines
from tune_cropshield.data.near_copies import joined
from tune_cropshield.data.split import TEST, TRAIN, VAL, Split
from tune_cropshield.files import printable

EXAMPLES = 3
OF_NOTHING = hashlib.sha256(b"").hexdigest()  # empty files are broken, not copies


def remarks(data: LeafData, folds: int = 1) -> list[str]:
    """Returns what is noteworthy, a sentence each. folds: how many a trial is trained on, `data` being one of them.

    That is what was left out, class names that look alike, classes of unequal size, few validation photographs, long
    photographs that are cropped, identical files in two classes, a given split with what its sides share, copies
    of one photograph on two sides, and a background that gives the class away.
    """
    store = data.store
    labels, given = store.labels.tolist(), (data.given_sides, data.given_by)
    known = _known(data.classes, labels, store.paths, store.digests, data.split, *given, folds)
    fits = {preparation.fit for preparation in data.stores}
    long = long_photographs_lines(store.sizes) if fits == {"crop"} else []
    copies = _Copies(store.paths, store.digests, data.keys, data.copies, data.named, data.of_table)
    together = [*_kept_together(copies, data.split), *_copies_on_both_sides(copies, data.split, data.given_sides)]
    if folds > 1:
        together += _copies_in_several_folds(copies, data.folds_N)
    return [*data.notes, *left_out_lines(data.left_out), *known, *long, *together, *_background(data)]


def _background(data: LeafData) -> list[str]:
    """Returns a sentence where the borders of the photographs tell their classes."""
    found = background_in(data)
    return [found.told] if found is not None and found.tells_too_much else []


def to_beat(split: Split, classes: Sequence[str], labels: Sequence[int]) -> str:
    """Returns what naming the largest class reaches on the validation photographs, and how the classes' sizes compare.

    The latter only where `remarks` does not say it.
    """
    validation = _counts(classes, [labels[index] for index in split.val])
    found = {name: count for name, count in validation.items() if count}
    of_all, reached = _counts(classes, labels), reached_by_the_largest(found, VAL)
    return f"to beat: {reached}" + ("" if is_imbalanced(of_all) else f"; classes: {sizes_line(of_all)}")


def remarks_before_decoding(
    folder: ImageFolder, split: Split, fits: Collection[Fit], keys: Sequence[str], found: Grouping, folds: int = 1
) -> list[str]:
    """Returns the remarks that need no photograph decoded: all but those on unreadable ones and copies found by look.

    Args:
        split: of the folder's files.
        fits: how photographs become squares in the trials.
        keys: what the split goes by.
        found: which of the files belong together.
        folds: how many a trial is trained on, `split` being one of them.
    """
    files = folder.files
    labels, paths, digests = (
        [file.label for file in files],
        [file.path for file in files],
        [file.digest for file in files],
    )
    given = {file.side for file in files if file.side is not None}
    known = _known(folder.classes, labels, paths, digests, split, given, folder.given_by, folds)
    sizes = [size_in_header(folder.root / path) for path in paths] if set(fits) == {"crop"} else []
    long = long_photographs_lines([size for size in sizes if size is not None])
    copies = _Copies(paths, digests, keys, found.copies, found.named, found.of_table)
    together = [*_kept_together(copies, split), *_copies_on_both_sides(copies, split, given)]
    if folds > 1:
        together += _copies_in_several_folds(copies, given_folds(folder, paths))
    return [*folder.notes, *left_out_lines(folder.left_out), *known, *long, *together]


@dataclass(frozen=True)
class _Copies:
    """Photographs and which of them belong together; see `LeafData`."""

    paths: Sequence[str]
    digests: Sequence[str]
    keys: Sequence[str]
    groups: Sequence[Sequence[int]]
    named: int | None
    of_table: bool


def _known(
    names: Sequence[str],
    labels: Sequence[int],
    paths: Sequence[str],
    digests: Sequence[str],
    split: Split,
    given_sides: Collection[str],
    given_by: str,
    folds: int,
) -> list[str]:
    """Returns the remarks that classes, files and the split give rise to."""
    classes = _counts(names, labels)
    lines = look_alike_lines(classes)
    if is_imbalanced(classes):
        lines.append(f"classes of unequal size: {sizes_line(classes)}; {always_the_largest_line(classes)}")
    validation = _counts(names, [labels[index] for index in split.val])
    if validation_is_small(validation):
        lines.append(validation_line(validation))
    lines += _identical_in_two_classes(labels, paths, digests)
    if given_sides:
        lines += [_given(split, given_sides, given_by, folds), *_identical_on_both_sides(split, paths, digests)]
    return lines


def _counts(names: Sequence[str], labels: Sequence[int]) -> dict[str, int]:
    """Returns how many photographs of each class bear these labels."""
    counts = Counter(labels)
    return {name: counts[label] for label, name in enumerate(names)}


def _given(split: Split, given_sides: Collection[str], given_by: str, folds: int) -> str:
    several = given_by == THE_FOLDERS
    has_test = "" if len(split.test) else "; it has no test photographs"
    if folds > 1:  # then no validation photographs are given
        return f"the test photographs are those that {given_by} {'give' if several else 'gives'}{has_test}"
    if VAL not in given_sides:
        drawn = counted(len(split.val), "photograph")
        contain = "contain" if several else "contains"
        return (
            f"{given_by} {contain} no validation photographs: {drawn} of train, chosen by content, are used{has_test}"
        )
    return f"the split is used as {given_by} {'give' if several else 'gives'} it{has_test}"


def _identical_in_two_classes(labels: Sequence[int], paths: Sequence[str], digests: Sequence[str]) -> list[str]:
    """Returns a sentence where identical files lie in more than one class, of which one label at most is right."""
    of_content: dict[str, dict[int, str]] = {}  # digest -> class -> the first path
    for label, path, digest in zip(labels, paths, digests, strict=True):
        if digest != OF_NOTHING:
            of_content.setdefault(digest, {}).setdefault(label, path)
    groups = [list(in_classes.values()) for in_classes in of_content.values() if len(in_classes) > 1]
    if not groups:
        return []
    lie = "lies" if len(groups) == 1 else "lie"
    examples = ", ".join(" = ".join(map(printable, group)) for group in groups[:EXAMPLES])
    return [
        f"{counted(len(groups), 'photograph')} {lie} in more than one class as identical files, so at most one of "
        f"the labels is right: {examples}; keep each in one class only"
    ]


def _identical_on_both_sides(split: Split, paths: Sequence[str], digests: Sequence[str]) -> list[str]:
    """Returns a sentence where identical files lie on two sides of a given split, which a split by content prevents."""
    first: dict[str, tuple[str, str]] = {}  # digest -> side, path
    pairs = []
    for side, indices in ((TRAIN, split.train), (VAL, split.val), (TEST, split.test)):
        for index in indices.tolist():
            known_side, known_path = first.setdefault(digests[index], (side, paths[index]))
            if known_side != side:
                pairs.append(f"{printable(known_path)} = {printable(paths[index])}")
    if not pairs:
        return []
    return [
        f"{counted(len(pairs), 'photograph')} of val and test {'is' if len(pairs) == 1 else 'are'} identical to others "
        f"of the split, so the accuracy is too high: {', '.join(pairs[:EXAMPLES])}"
    ]


def _kept_together(copies: _Copies, split: Split) -> list[str]:
    """Returns which photographs the split keeps together beside identical files, a sentence for each reason.

    A given split may part what their folders or paths join, which is said too.
    """
    lines = []
    by = "the table says" if copies.of_table else "their folders or paths say"
    if copies.named == 0 and copies.of_table:
        lines.append("the groups of the table join no photographs: no two of them have the same one")
    elif copies.named == 0:
        lines.append("group in [data] joins no photographs: no two of them belong together by their folders or paths")
    elif copies.named is not None:
        groups = counted(copies.named, "group")
        across = len(parted(_with_equal_keys(copies), split))
        told = (
            f"the given split parts the photographs of {across}, so the accuracy is too high"
            if across
            else "the split keeps each together"
        )
        lines.append(f"{groups} of photographs, as {by}: {told}")
    apart = set(parted(copies.groups, split))
    whole = [group for group in copies.groups if tuple(group) not in apart]
    kept = [group for group in whole if len({copies.keys[index] for index in group}) == 1]
    if kept:
        lines.append(
            f"{sum(map(len, kept))} photographs are {len(kept)} and their copies (turned, mirrored, rescaled, "
            "compressed, or copies by their names). The split keeps them together: "
            f"{', '.join(_examples(copies, kept))} "
            '(not with group = "none" under [data])'
        )
    return lines


def _with_equal_keys(copies: _Copies) -> list[list[int]]:
    """Returns the groups of photographs that a split should keep together, beside identical files."""
    members: dict[str, list[int]] = defaultdict(list)
    for index, key in enumerate(copies.keys):
        members[key].append(index)
    return [group for group in members.values() if len({copies.digests[index] for index in group}) > 1]


def _examples(copies: _Copies, groups: Sequence[Sequence[int]]) -> list[str]:
    """Returns two photographs of each of the first groups that are no identical files: "rust/a.jpg and rust/b.jpg"."""
    paths, digests = copies.paths, copies.digests
    pairs = ((one, next(other for other in rest if digests[other] != digests[one])) for one, *rest in groups[:EXAMPLES])
    return [f"{printable(paths[one])} and {printable(paths[other])}" for one, other in pairs]


def _copies_on_both_sides(copies: _Copies, split: Split, given_sides: Collection[str]) -> list[str]:
    """Returns a sentence where copies that are no identical files lie on two sides of the split."""
    side_of = dict.fromkeys(split.train.tolist(), TRAIN)
    side_of |= dict.fromkeys(split.val.tolist(), VAL) | dict.fromkeys(split.test.tolist(), TEST)
    touched: dict[str, set[int]] = {VAL: set(), TEST: set()}
    examples = []
    for group in parted(copies.groups, split):
        first = group[0]
        across = next(
            (
                index
                for index in group
                if side_of[index] != side_of[first] and copies.digests[index] != copies.digests[first]
            ),
            None,
        )
        if across is None:
            continue
        one, other = printable(copies.paths[first]), printable(copies.paths[across])
        examples.append(f"{one} ({side_of[first]}) and {other} ({side_of[across]})")
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
        f"{counts} have a copy in another part of the split (turned, mirrored, rescaled, compressed, or a copy by its "
        f"name), so the accuracy is too high: {', '.join(examples[:EXAMPLES])}; {_remedy(given_sides)}"
    ]


def _copies_in_several_folds(copies: _Copies, folds_N: Sequence[int | None]) -> list[str]:
    """Returns a sentence where a table deals copies of one photograph, or identical files, into more than one fold."""
    if not folds_N:
        return []
    identical: dict[str, list[int]] = defaultdict(list)
    for index, digest in enumerate(copies.digests):
        identical[digest].append(index)
    pairs = []
    for group in joined(len(folds_N), [two for of in (*copies.groups, *identical.values()) for two in pairwise(of)]):
        dealt = [index for index in group if folds_N[index] is not None]
        other = next((index for index in dealt if folds_N[index] != folds_N[dealt[0]]), None)
        if other is not None:
            pairs.append(f"{printable(copies.paths[dealt[0]])} and {printable(copies.paths[other])}")
    if not pairs:
        return []
    more = ", ..." if len(pairs) > EXAMPLES else ""
    return [
        f"the table deals copies of {counted(len(pairs), 'photograph')} into more than one fold, so the accuracy is "
        f"too high: {', '.join(pairs[:EXAMPLES])}{more}; give all copies of one photograph the same fold"
    ]


def _remedy(given_sides: Collection[str]) -> str:
    """Returns how copies would come to lie on one side of the split."""
    if given_sides:
        return "keep one of each, or all of them in one part of your split"
    return "keep one of each, or give a split (train/, val/)"
