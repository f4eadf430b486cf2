"""Image folders as Hugging Face has them: a metadata file beside the photographs says what each of them is.

    DIR/metadata.csv              file_name,label         with file_name like 1.jpg, or train/1.jpg
    DIR/train/metadata.jsonl      {"file_name": ..., "label": ...}, DIR/test/metadata.jsonl, ...

https://huggingface.co/docs/datasets/image_dataset
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tune_cropshield.config.settings import TABLE_COLUMNS, DataConfig
from tune_cropshield.data.label_table import LabelTable, read_label_table
from tune_cropshield.data.layout import side_of
from tune_cropshield.errors import DataError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


def read_metadata(config: DataConfig) -> LabelTable | None:
    """Returns what the metadata files in `config.dir` say, as one table with paths from there.

    Where the photographs lie in folders named after the parts of a split, and the files name none, these are the split.
    None where there is no such file, where none has labels (then folders name the classes), or where `class_depth` says
    that folders do.

    Raises DataError where a file cannot be read, or one names labels and another does not.
    """
    root = Path(config.dir)
    if config.class_depth is not None or not os.path.isdir(root):
        return None
    path_column, label_column = config.columns.get("path", FILE_NAME), config.columns.get("label", "label")
    tables = [(place, read_label_table(file)) for place, file in _files(root)]
    labelled = [(place, table) for place, table in tables if {path_column, label_column} <= table.columns.keys()]
    if not labelled:
        if tables and config.columns:
            first = tables[0][1]
            lacking = [name for name in (path_column, label_column) if name not in first.columns]
            raise DataError(
                f"{first.path}: there is no column {' and no column '.join(map(repr, lacking))}; its columns are "
                f"{', '.join(map(repr, first.columns))}: mend columns in [data], or leave it out where folders name "
                "the classes"
            )
        return None
    if len(labelled) < len(tables):
        without, missing = next(
            (table, name) for _, table in tables for name in (label_column, path_column) if name not in table.columns
        )
        raise DataError(f"{without.path} has no column {missing!r}, unlike {labelled[0][1].path}: give it one")
    names = {role: config.columns.get(role, role) for role in TABLE_COLUMNS} | {"path": path_column}
    wanted = [role for role, name in names.items() if any(name in table.columns for _, table in labelled)]
    columns: dict[str, list[str]] = {names[role]: [] for role in wanted}
    places: list[str] = []
    for place, table in labelled:
        for role in wanted:
            cells = table.columns.get(names[role], [""] * len(table))
            columns[names[role]] += [f"{place}{cell}" if cell else "" for cell in cells] if role == "path" else cells
        several = f"{place}{table.path.name} " if len(labelled) > 1 else ""
        places += [f"{several}{where}" for where in table.places]
    if "split" not in wanted and (sides := _sides(columns[path_column])):
        columns[names["split"]] = sides
    others = {name: cells for name, cells in labelled[0][1].columns.items() if name not in columns}
    if len(labelled) == 1:
        columns |= others
    file = labelled[0][1].path if len(labelled) == 1 else root / labelled[0][1].path.name
    return LabelTable(file, columns, places)


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yields (how its paths begin, the file) of the metadata in a folder, its parts of a split, and those of data/."""
    folders = [root, *(root / name for name in side_folders(root)), root / "data"]
    folders += [root / "data" / name for name in side_folders(root / "data")]
    for folder in folders:
        file = next((folder / name for name in METADATA if os.path.isfile(folder / name)), None)
        if file is not None:
            place = folder.relative_to(root).as_posix()
            yield ("" if place == "." else f"{place}/"), file


def side_folders(folder: Path) -> list[str]:
    """Returns the folders in a folder that are named after parts of a split; none where it cannot be looked into."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and side_of(entry.name) is not None)
    except OSError:
        return []


def _sides(paths: list[str]) -> list[str]:
    """Returns the side that each path begins with, behind data/; nothing where not all do, or all with the same."""
    sides = [side_of(path.removeprefix("data/").partition("/")[0]) if "/" in path else None for path in paths]
    named = [side for side in sides if side is not None]
    return named if len(named) == len(paths) and len(set(named)) > 1 else []
