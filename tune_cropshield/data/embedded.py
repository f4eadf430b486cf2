"""Photographs inside Parquet files, as Hugging Face's `datasets` writes them: an image is a struct of bytes and a path.

They are taken out once, into a folder of the cache, and are files like any others from then on.
https://huggingface.co/docs/datasets/about_dataset_features#image-feature
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import TABLE_COLUMNS, DataConfig
from tune_cropshield.config.units import counted
from tune_cropshield.data.hugging_face import side_folders
from tune_cropshield.data.label_table import PARQUET, LabelTable, as_text, class_names, parquet_schema, read_label_table
from tune_cropshield.data.layout import side_of
from tune_cropshield.errors import DataError
from tune_cropshield.files import raising_disk_full

if TYPE_CHECKING:
    import pyarrow

EXTRACTED = "extracted-"  # how the folders in the cache begin
TABLE = "labels.csv"
ROWS_AT_ONCE = 128
LONGEST_NAME = 60  # letters of four bytes each, where file systems know 255 bytes


def embedded_files(config: DataConfig) -> list[Path]:
    """Returns the Parquet files that hold photographs: `config.labels`, or those in `config.dir`; none elsewhere.

    In a folder they lie directly, in data/, or in folders named after the parts of a split.

    Where `config.labels` has a column of paths, and `config.dir` says where these begin, it holds paths.

    Raises DataError where one cannot be read.
    """
    if config.labels:
        found = [Path(config.labels)] if Path(config.labels).suffix.lower() in PARQUET else []
    elif config.dir and config.class_depth is None:
        root = Path(config.dir)
        folders = [root, root / "data", *(root / name for name in side_folders(root))]
        found = [path for folder in folders for path in _parquet_in(folder)]
    else:
        found = []
    return [path for path in found if os.path.isfile(path) and _image_column(path, config) is not None]


def take_out(config: DataConfig, files: Sequence[Path]) -> tuple[LabelTable, Path]:
    """Returns what Parquet files say of the photographs in them, as a table, and the folder that its paths begin in.

    A file's name or folder tells the part of the split, as in train-00000-of-00002.parquet, where they tell several.

    Raises:
        DataError: a file has no column of labels, or a row no photograph.
        DiskFull: there is no space for the photographs.
    """
    key = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    name = hashlib.sha256(json.dumps([key, config.columns]).encode()).hexdigest()[:16]
    folder = cache_dir() / f"{EXTRACTED}{name}"
    if not (folder / TABLE).is_file():
        aside = folder.with_name(f"{folder.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            aside.mkdir(parents=True)
            with raising_disk_full(aside):
                _write(aside, files, config)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(aside, folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    table = read_label_table(folder / TABLE)
    used = [name for name, cells in table.columns.items() if name in ("path", "label") or any(cells)]
    cells = {name: table.columns[name] for name in used if name != "place"}
    named = files[0] if len(files) == 1 else Path(config.dir)
    return LabelTable(named, cells, table.columns["place"]), folder


def _write(folder: Path, files: Sequence[Path], config: DataConfig) -> None:
    """Writes the photographs of the files into `folder`, and a table of them."""
    sides = [side_of(re.split(r"[-_.]", path.name)[0]) or side_of(path.parent.name) for path in files]
    several = None not in sides and len(set(sides)) > 1
    roles = [role for role in TABLE_COLUMNS[1:] if config.columns.get(role, role)]
    faults, number = list[str](), 0
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, quoting=csv.QUOTE_ALL)
        table.writerow(["path", *roles, "place"])
        for path, side in zip(files, sides, strict=True):
            schema = parquet_schema(path)
            _check_columns(path, schema, config)
            inside = folder / (side or "all")
            inside.mkdir(exist_ok=True)
            for row, (image, cells) in enumerate(_rows(path, schema, config, roles), 1):
                number += 1
                if not (isinstance(image, dict) and image.get("bytes")):
                    faults.append(f"{path.name} row {row}")
                    continue
                known = re.sub(r"[^\w.-]+", "_", os.path.basename(str(image.get("path") or "")))
                known = known[-LONGEST_NAME:]
                picture = inside / (f"{number:06d}_{known}" if known else f"{number:06d}.jpg")
                picture.write_bytes(image["bytes"])
                if several and cells.get("split") == "":
                    cells["split"] = side or ""
                table.writerow(
                    [f"{inside.name}/{picture.name}", *(cells[role] for role in roles), f"{path.name} row {row}"]
                )
    if faults:
        have = "has" if len(faults) == 1 else "have"
        raise DataError(
            f"{files[0].parent}: {counted(len(faults), 'row')} of the Parquet files {have} no photograph: {faults[0]}"
        )


def _rows(
    path: Path, schema: pyarrow.Schema, config: DataConfig, roles: Sequence[str]
) -> Iterator[tuple[Any, dict[str, str]]]:
    """Yields the image of each row, and what its columns say, as text."""
    from pyarrow import parquet

    image, names = _image_column(path, config), class_names(schema)
    of_role = {role: config.columns.get(role, role) for role in roles}
    wanted = [name for name in of_role.values() if name in schema.names]
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, columns=[image, *wanted]):
            for row in batch.to_pylist():
                yield row[image], {role: as_text(row.get(name), names.get(name)) for role, name in of_role.items()}


def _image_column(path: Path, config: DataConfig) -> str | None:
    """Returns the column of a Parquet file that holds photographs; None where there is none, or paths are meant."""
    from pyarrow import types

    fields = {str(field.name): field.type for field in parquet_schema(path)}
    inside = [
        name for name, kind in fields.items() if types.is_struct(kind) and "bytes" in {part.name for part in kind}
    ]
    wanted = config.columns.get("path")
    if wanted in fields:
        return wanted if wanted in inside else None
    if config.labels and config.dir and {"path", "file_name"} & fields.keys():
        return None
    return inside[0] if inside else None


def _check_columns(path: Path, schema: pyarrow.Schema, config: DataConfig) -> None:
    """Raises DataError where columns were named that a Parquet file does not have, or label is none of them."""
    wanted = {"label": "label"} | config.columns
    missing = {role: name for role, name in wanted.items() if name not in schema.names and (name or role == "label")}
    if missing:
        told = " and ".join(f"{name!r} for {role}" for role, name in missing.items())
        example = ",".join(f"{role}=NAME" for role in missing)
        raise DataError(
            f"{path}: there is no column {told}; its columns are {', '.join(schema.names)}: say which one it is "
            f"(--columns {example})"
        )


def _parquet_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in PARQUET)
    except OSError:
        return []
