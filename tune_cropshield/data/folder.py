"""A folder of photographs -> classes, files, the digest of every file, and what was left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import translate
from pathlib import Path
from types import MappingProxyType

from tune_cropshield.config.units import counted
from tune_cropshield.data.digests import file_digests
from tune_cropshield.data.layout import EXPECTED, Layout, deeper, find_layout
from tune_cropshield.data.left_out import LeftOut, left_out_lines
from tune_cropshield.data.listing import ListedImage, Listing, follow, list_below, list_file, sorted_entries
from tune_cropshield.data.split import check_given_split
from tune_cropshield.errors import DataError
from tune_cropshield.files import printable

NOTHING: Mapping[str, str] = MappingProxyType({})
THE_FOLDERS = "the folders"  # what gives a split, in messages


@dataclass(frozen=True)
class Said:
    """What a table says of a photograph beside its class and its side of the split.

    group: of photographs that belong together. fold: its number, from 0. weight: what it counts for in the loss, above
    0. "" and None where the table does not say.
    """

    group: str = ""
    fold: int | None = None
    weight: float | None = None


SAYS_NOTHING = Said()
NOTHING_SAID: Mapping[str, Said] = MappingProxyType({})


@dataclass(frozen=True)
class ImageFile:
    """One image.

    path: relative to the folder, with forward slashes. label: an index into its classes. digest: its SHA-256 in hex.
    side: "train", "val" or "test" where the folder is split already.
    """

    path: str
    label: int
    digest: str
    side: str | None = None


@dataclass(frozen=True)
class ImageFolder:
    """What `scan_folder` found.

    `classes` and `files` are sorted by name and path, so equal folders compare equal on every machine. `layout` says
    which folders name the classes. `left_out` names everything else that lies in the folder, with the reason.

    given_by: what gives the split, in words, where one is given. said: {path: what a table says of it}. notes:
    sentences on how labels were read, where a table holds them.
    """

    root: Path
    classes: tuple[str, ...]
    files: tuple[ImageFile, ...]
    layout: Layout
    left_out: tuple[LeftOut, ...] = ()
    given_by: str = THE_FOLDERS
    said: Mapping[str, Said] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListedFolder:
    """What `list_folder` found: as `ImageFolder`, without anything read. images: (file, label, side), by path."""

    root: Path
    classes: tuple[str, ...]
    images: tuple[tuple[ListedImage, int, str | None], ...]
    layout: Layout
    left_out: tuple[LeftOut, ...]
    given_by: str = THE_FOLDERS
    said: Mapping[str, Said] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def of_class(self, label: int) -> list[ListedImage]:
        """Returns the images of the class `label`."""
        return [image for image, of, _ in self.images if of == label]


def scan_folder(
    root: Path,
    digest_cache: Path | None,
    class_depth: int | None = None,
    merge: Mapping[str, str] = NOTHING,
    *,
    exclude: Sequence[str] = (),
    for_training: bool = True,
) -> ImageFolder:
    """Returns every photograph below `root` that the decoder knows how to read, whatever its name.

    Each sub-folder is a class, and folders inside a class belong to it; train/CLASS and val/CLASS, or CLASS/train and
    CLASS/val, are a given split (see layout.py). Whether a photograph is whole is the store's question. Links to
    folders are followed, none twice.

    Args:
        digest_cache: see `file_digests`.
        class_depth: how many folders make a class's name, 1 or 2, where it was said; those of a split do not count.
        merge: {class folder: the class that it belongs to}.
        exclude: patterns of the paths of photographs that are left out; see `DataConfig`.
        for_training: False for a folder that a trained network is judged on: it may have one class, lack classes that
            are merged, and its split need not be whole.

    Raises:
        DataError: the folder is missing, no folder, not readable, without images, with one class, or of a layout that
            is no classes; or `merge` names no class of it, or `exclude` no photograph.
    """
    return read_listed(list_folder(root, class_depth, merge, exclude=exclude, for_training=for_training), digest_cache)


def read_listed(listed: ListedFolder, digest_cache: Path | None) -> ImageFolder:
    """Returns listed photographs with their digests, without those that are gone by now; see `scan_folder`."""
    try:
        digests = file_digests(listed.root, [image for image, _, _ in listed.images], digest_cache)
    except PermissionError as error:
        raise DataError(f"no permission to read {str(error.filename or listed.root)!r}") from error
    files = tuple(
        ImageFile(image.path, label, digests[image.path], side)
        for image, label, side in listed.images
        if image.path in digests  # deleted since it was listed: as if it had never been there
    )
    of_table = listed.given_by, listed.said, listed.notes
    return ImageFolder(listed.root, listed.classes, files, listed.layout, listed.left_out, *of_table)


def list_folder(
    root: Path,
    class_depth: int | None = None,
    merge: Mapping[str, str] = NOTHING,
    *,
    exclude: Sequence[str] = (),
    for_training: bool = True,
) -> ListedFolder:
    """Returns the photographs of each class without reading any; raises DataError as `scan_folder` would."""
    root = Path(os.path.abspath(root))
    try:
        tops, outside = _list_tops(root)
    except PermissionError as error:
        raise DataError(f"no permission to read {str(error.filename or root)!r}") from error
    _check_there_are_photographs(root, tops, outside)
    excluded = _take_out(exclude, tops, str(root), for_training=for_training)
    paths = [image.path for listing in tops.values() for image in listing.photographs]
    layout = find_layout(root, paths, class_depth)

    images: list[tuple[ListedImage, str, str | None]] = []
    folders: set[str] = set()  # the classes before they are merged
    left_out = [*outside.left_out, *excluded]
    for name, listing in tops.items():
        for image in listing.photographs:
            place = layout.place(image.path)
            if place is None:
                left_out.append(LeftOut(image.path, "no class", "in no class folder"))
            else:
                images.append((image, merge.get(place[0], place[0]), place[1]))
                folders.add(place[0])
        if not listing.photographs:
            left_out.append(LeftOut(f"{name}/", "empty", "no photograph in it"))
        for thing in listing.left_out:
            place = layout.place(thing.path)
            left_out.append(replace(thing, class_name=merge.get(place[0], place[0]) if place is not None else ""))
    left_out += _empty_class_folders(tops, layout)
    _check_there_are_classes(root, layout, tops)
    classes = tuple(sorted({name for _, name, _ in images}))
    if for_training:
        check_merged(str(root), merge, folders)
        _check_there_are_two(root, classes, images, folders)
    labels = {name: label for label, name in enumerate(classes)}
    placed = sorted(((image, labels[name], side) for image, name, side in images), key=lambda placed: placed[0].path)
    if layout.side_part is not None and for_training:
        check_given_split(classes, [label for _, label, _ in placed], [side or "" for _, _, side in placed])
    left_out.sort(key=lambda thing: thing.path)
    return ListedFolder(root, classes, tuple(placed), layout, tuple(left_out))


def matching(exclude: Sequence[str], paths: Iterable[str], where: str, *, for_training: bool) -> dict[str, str]:
    """Returns {path: the pattern of `exclude` that it matches} of those that match one.

    Raises DataError where a pattern matches none, `for_training`, or all are excluded; where: names them.
    """
    listed = list(paths)
    patterns = {pattern: re.compile(translate(pattern)) for pattern in exclude}
    found: dict[str, str] = {}
    unused = []
    for pattern, compiled in patterns.items():
        hits = [path for path in listed if compiled.match(path)]
        if not hits:
            unused.append(pattern)
        for path in hits:
            found.setdefault(path, pattern)
    if unused and for_training:
        raise DataError(
            f"exclude in [data] names {', '.join(map(repr, unused))}, which no photograph of {where!r} matches (they "
            f"are called like {printable(listed[0])!r}; * stands for any text): mend it, or leave it out"
        )
    if listed and len(found) == len(listed):
        raise DataError(f"exclude in [data] leaves out all {len(listed)} photographs of {where!r}")
    return found


def excluded(path: str, pattern: str, class_name: str = "") -> LeftOut:
    """Returns a photograph that `exclude` leaves out."""
    return LeftOut(path, "excluded", f"exclude = {pattern}", class_name)


def _take_out(exclude: Sequence[str], tops: dict[str, Listing], where: str, *, for_training: bool) -> list[LeftOut]:
    """Takes the photographs that `exclude` names out of `tops`, and folders of which none is left; returns them."""
    if not exclude:
        return []
    photographs = [image.path for listing in tops.values() for image in listing.photographs]
    found = matching(exclude, photographs, where, for_training=for_training)
    for name, listing in list(tops.items()):
        left = [image for image in listing.photographs if image.path not in found]
        if listing.photographs and not left:
            del tops[name]
        else:
            tops[name] = replace(listing, photographs=left)
    return [excluded(path, pattern) for path, pattern in found.items()]


def _list_tops(root: Path) -> tuple[dict[str, Listing], Listing]:
    """Returns what lies below each sub-folder of `root`, and what lies beside them."""
    if not os.path.exists(root):  # unlike Path.exists, says no to names that are too long
        raise DataError(f"there is no folder {str(root)!r}")
    if not root.is_dir():
        raise DataError(f"{str(root)!r} is not a folder; {EXPECTED}")
    outside = Listing()
    folders = [entry for entry in sorted_entries(str(root)) if list_file(entry, entry.name, outside)]
    read = [os.path.realpath(entry.path) for entry in folders if not entry.is_symlink()]
    folders = [entry for entry in folders if not entry.is_symlink() or follow(entry.path, entry.name, read, outside)]
    tops = {entry.name: list_below(entry.path, entry.name, read) for entry in folders}  # no photograph in two of them
    loose = [LeftOut(image.path, "no class", "in no class folder") for image in outside.photographs]
    outside.left_out.extend(loose)
    return tops, outside


def _check_there_are_photographs(root: Path, tops: Mapping[str, Listing], outside: Listing) -> None:
    if any(listing.photographs for listing in tops.values()):
        return
    if outside.photographs:
        count = len(outside.photographs)
        lie = "lies directly in it and has" if count == 1 else "lie directly in it, so they have"
        raise DataError(f"the {counted(count, 'image')} of {str(root)!r} {lie} no class; {EXPECTED}")
    left_out = [
        replace(thing, class_name=printable(name)) for name, listing in tops.items() for thing in listing.left_out
    ]
    there = "".join(f"; {line}" for line in left_out_lines(left_out))
    raise DataError(f"no images in the sub-folders of {str(root)!r}{there}; {EXPECTED}")


def _check_there_are_classes(root: Path, layout: Layout, tops: Mapping[str, Listing]) -> None:
    """Raises DataError where a `class_depth` was said that no photograph lies as deep as."""
    photographs = [image for listing in tops.values() for image in listing.photographs]
    if any(layout.place(image.path) is not None for image in photographs):
        return
    depth = len(layout.class_parts)
    meant = "DATA/apple/scab/1.jpg" if layout.side_part is None else "DATA/train/apple/scab/1.jpg"
    raise DataError(
        f"class_depth = {depth} in [data] means {meant}, but no photograph of {str(root)!r} lies that deep (as "
        f"{printable(photographs[0].path)} does not): leave class_depth out, or put each class into a folder of its "
        "crop"
    )


def _empty_class_folders(tops: Mapping[str, Listing], layout: Layout) -> list[LeftOut]:
    """Returns the folders inside the sub-folders that would be a class, or its side of a split, but are empty."""
    depth = max(*layout.class_parts, layout.side_part or 0) + 1
    empty = []
    for listing in tops.values():
        filled = {"/".join(image.path.split("/")[:depth]) for image in listing.photographs}
        empty += [
            LeftOut(f"{folder}/", "empty", "no photograph in it")
            for folder in listing.folders
            if listing.photographs
            and folder.count("/") + 1 == depth
            and layout.place(f"{folder}/x") is not None
            and folder not in filled
        ]
    return empty


def check_merged(where: str, merge: Mapping[str, str], folders: set[str]) -> None:
    """Raises DataError where `merge` names a class that is none of `folders`; where: what holds these."""
    unknown = sorted(merge.keys() - folders)
    if unknown:
        raise DataError(
            f"merge in [data] names {', '.join(map(repr, unknown))}, which is not a class of {where!r}; its "
            f"classes are {', '.join(map(repr, sorted(folders)))}"
        )


def _check_there_are_two(
    root: Path, classes: tuple[str, ...], images: list[tuple[ListedImage, str, str | None]], folders: set[str]
) -> None:
    if len(classes) == 1 and len(folders) > 1:
        raise DataError(
            f"at least two classes are needed, but merge in [data] joins all {len(folders)} of {str(root)!r} "
            f"({', '.join(map(repr, sorted(folders)))}) into {classes[0]!r}: take one out of it"
        )
    if len(classes) == 1:
        meant = deeper(root, [image.path for image, _, _ in images])
        hint = f"; it has sub-folders itself: was {meant!r} meant?" if meant is not None else ""
        raise DataError(
            f"at least two classes are needed, but {str(root)!r} has one: {classes[0]!r} with "
            f"{counted(len(images), 'image')}{hint}"
        )
