"""Where photographs come from, with their classes and their sides of a given split, whichever [data] names.

A folder of classes (folder.py), folders of a split under any names (side_folders.py), a table of labels (labels.py), a
folder with a metadata file (hugging_face.py), or photographs inside Parquet files (embedded.py): everything behind this
module works alike for all of them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.embedded import embedded_files, take_out
from tune_cropshield.data.folder import SAYS_NOTHING, ImageFolder, ListedFolder, list_folder, read_listed
from tune_cropshield.data.hugging_face import read_metadata
from tune_cropshield.data.labels import list_labelled, list_rows
from tune_cropshield.data.side_folders import list_side_folders
from tune_cropshield.data.split import check_classes_of_folds, check_folds, check_given_folds
from tune_cropshield.errors import DataError

ONLY_WITH_A_TABLE = "columns in [data] is only used with a table of labels: give one (--labels), or leave it out"
Read = TypeVar("Read")


def list_photographs(config: DataConfig, *, for_training: bool = True) -> ListedFolder:
    """Returns the photographs that `config` names, without reading any.

    Args:
        for_training: False for photographs that a trained network is judged on; see `scan_folder`.

    Raises:
        DataError: they cannot be trained on, with everything that is wrong.
    """
    if config.columns and config.train:
        raise DataError(ONLY_WITH_A_TABLE)
    if files := _or_folders(embedded_files, config):
        inside, root = take_out(config, files)
        return list_rows(inside, root, config.at({"columns": {}}), for_training=for_training)
    if config.labels:
        return list_labelled(config, for_training=for_training)
    if config.train:
        return list_side_folders(config, for_training=for_training)
    if (table := _or_folders(read_metadata, config)) is not None:
        return list_rows(table, Path(os.path.abspath(config.dir)), config, for_training=for_training)
    if config.columns:
        raise DataError(ONLY_WITH_A_TABLE)
    root = Path(config.dir)
    try:
        return list_folder(root, config.class_depth, config.merge, exclude=config.exclude, for_training=for_training)
    except DataError as error:
        raise DataError(f"{error}{_or_a_table(root)}") from None


def folders_name_classes(config: DataConfig) -> bool:
    """Tells whether the classes are named by folders, and by no table, also none that lies in the folder.

    Raises DataError where such a table cannot be read.
    """
    return not (config.labels or embedded_files(config) or read_metadata(config) is not None)


def _or_folders(read: Callable[[DataConfig], Read], config: DataConfig) -> Read:
    """Returns what `read` finds in the folder of `config`; its fault tells how such files are passed by."""
    try:
        return read(config)
    except DataError as error:
        if not config.dir or config.labels:
            raise
        raise DataError(f"{error}; if folders name the classes, set class_depth = 1 in [data]") from None


def _or_a_table(root: Path) -> str:
    """Returns which tables in a folder may hold the labels that its sub-folders do not name; "" where there is none."""
    try:
        tables = sorted(path for path in root.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".parquet"))
    except OSError:
        return ""
    named = " or ".join(f"--labels {shlex.quote(str(path))}" for path in tables[:2])
    return f"; if a table in it has the labels, give it: {named}" if tables else ""


def scan_photographs(config: DataConfig, digest_cache: Path | None, *, for_training: bool = True) -> ImageFolder:
    """Returns the photographs that `config` names with the digests of their files; raises as `list_photographs` does.

    digest_cache: see `file_digests`.
    """
    return read_listed(list_photographs(config, for_training=for_training), digest_cache)


def check_photographs(config: DataConfig, *, folds: int = 1) -> None:
    """Raises DataError as `scan_photographs` would, in an instant: the files are listed, but not read.

    folds: more than one are refused where the validation photographs are given, or another number of folds is.
    Where no photographs are named, only that no columns of theirs are.
    """
    if not config.given:
        if config.columns:
            raise DataError(ONLY_WITH_A_TABLE)
        return
    listed = list_photographs(config)
    check_folds(folds, {side for _, _, side in listed.images if side is not None}, config.place, listed.given_by)
    numbers = [listed.said.get(image.path, SAYS_NOTHING).fold for image, _, _ in listed.images]
    check_given_folds(folds, numbers, config.place)
    check_classes_of_folds(folds, numbers, [label for _, label, _ in listed.images], listed.classes, config.place)
