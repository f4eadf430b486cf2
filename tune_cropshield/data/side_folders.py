"""The folders of a given split under any names: one of classes to train on, one to validate, one to test, if any."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import permutations
from pathlib import Path

from tune_cropshield.config.settings import SIDE_FOLDERS, DataConfig
from tune_cropshield.data.folder import ListedFolder, check_merged, excluded, list_folder, matching
from tune_cropshield.data.layout import Layout
from tune_cropshield.data.split import given_split_faults
from tune_cropshield.errors import DataError


def list_side_folders(config: DataConfig, *, for_training: bool = True) -> ListedFolder:
    """Returns the photographs of the folders `config.train`, `config.val` and `config.test`.

    Their paths begin in the folder that holds all of these. Each is laid out as a folder of classes.

    Raises DataError with everything that is wrong: as `scan_folder` of each; a folder inside another one; a class that
    is not in all of them.
    """
    folders = {side: Path(os.path.abspath(getattr(config, side))) for side in SIDE_FOLDERS if getattr(config, side)}
    _check_apart(folders)
    listed, faults = dict[str, ListedFolder](), list[str]()
    for side, folder in folders.items():
        try:
            listed[side] = list_folder(folder, config.class_depth, for_training=False)
        except DataError as error:
            faults.append(f"--{side}: {error}")
        else:
            if listed[side].layout.side_part is not None:
                faults.append(f"--{side}: {str(folder)!r} holds a split itself: give one part of it")
    if faults:
        raise DataError("\n".join(faults))
    root = Path(os.path.commonpath([folder.parent for folder in folders.values()]))
    beginning = {side: f"{folder.relative_to(root).as_posix()}/" for side, folder in folders.items()}
    images = [
        (replace(image, path=beginning[side] + image.path), config.merge.get(name, name), side)
        for side, found in listed.items()
        for image, label, _ in found.images
        for name in (found.classes[label],)
    ]
    left_out = [
        replace(thing, path=beginning[side] + thing.path) for side, found in listed.items() for thing in found.left_out
    ]
    if config.exclude:
        out = matching(config.exclude, [image.path for image, _, _ in images], config.place, for_training=for_training)
        left_out += [excluded(image.path, out[image.path], name) for image, name, _ in images if image.path in out]
        images = [placed for placed in images if placed[0].path not in out]
    classes = tuple(sorted({name for _, name, _ in images}))
    images.sort(key=lambda placed: placed[0].path)
    labels = [classes.index(name) for _, name, _ in images]
    if for_training:
        check_merged(config.place, config.merge, {name for found in listed.values() for name in found.classes})
        faults = given_split_faults(classes, labels, [side for _, _, side in images])
        if len(classes) < 2:
            faults.append(f"at least two classes are needed, but {config.place} have one: {classes[0]!r}")
        if faults:
            raise DataError("\n".join(faults))
    left_out.sort(key=lambda thing: thing.path)
    layout = Layout(listed["train"].layout.class_parts, None, tuple(beginning.values()))
    placed = tuple((image, label, side) for (image, _, side), label in zip(images, labels, strict=True))
    return ListedFolder(root, classes, placed, layout, tuple(left_out))


def _check_apart(folders: Mapping[str, Path]) -> None:
    """Raises DataError where a photograph would lie in two of the folders, or they have none in common."""
    whole = {side: Path(os.path.realpath(folder)) for side, folder in folders.items()}
    inside = [
        f"--{one} ({folders[one]}) lies inside --{other} ({folders[other]})"
        for one, other in permutations(folders, 2)
        if whole[one].is_relative_to(whole[other]) and (whole[one] != whole[other] or one < other)
    ]
    if inside:
        raise DataError(f"the folders of a split must lie beside each other, but {'; '.join(inside)}")
    if len({folder.anchor for folder in folders.values()}) > 1:
        raise DataError(
            f"the folders of a split must lie on one drive, but got {', '.join(map(str, folders.values()))}"
        )
