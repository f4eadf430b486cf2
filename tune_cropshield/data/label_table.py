"""A table of labels -> its columns as text: CSV in whatever form programs write it, JSON lines, Parquet.

Only its form is this module's business; what the columns say is checked in labels.py.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.faults import shown
from tune_cropshield.config.units import counted
from tune_cropshield.errors import DataError
from tune_cropshield.shell import install_command

if TYPE_CHECKING:
    import pyarrow

PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson")
SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
# What programs write for a cell that holds nothing. "NA" and "None" may be names of classes.
NOTHING = frozenset(("", "nan", "NaN", "<NA>", "null", "NULL", "#N/A"))
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
COMPRESSED = (b"PK\x03\x04", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00")
LONGEST_HEADER = 100_000  # characters: csv refuses cells of more than 131,072
EXAMPLES = 3


@dataclass(frozen=True)
class LabelTable:
    """A table as text.

    columns: {name in the header: a cell per row, "" where it holds nothing}. places: "line 7" of each row.
    """

    path: Path
    columns: Mapping[str, list[str]]
    places: Sequence[str]

    def __len__(self) -> int:
        return len(self.places)


def read_label_table(path: Path) -> LabelTable:
    """Returns the table in a .csv, .tsv, .jsonl or .parquet file, by its suffix; another one is read as CSV.

    Commas, semicolons, tabs and bars separate the cells of a CSV, whichever its header has. Labels stay what a person
    reads there: "001" is not 1. Columns of a Parquet file that hold no plain values, such as images, are left out;
    numbers that stand for the names of classes (ClassLabel of Hugging Face) become these.

    Raises DataError where it is missing, empty, no UTF-8 and no UTF-16, or its rows do not have the header's cells.
    """
    suffix = path.suffix.lower()
    if not os.path.isfile(path):  # unlike Path.is_file, says no where it must not be looked at
        what = "is a folder, and no table" if os.path.isdir(path) else "there is no such table"
        raise DataError(f"{path}: {what} of labels (.csv, .parquet or .jsonl)")
    if suffix in SPREADSHEETS:
        raise DataError(f"{path}: spreadsheets are not read: save it as CSV (UTF-8)")
    if suffix in PARQUET:
        table = read_parquet(path)
        names = class_names(table.schema)
        plain = plain_columns(table)
        columns = {name: [as_text(value, names.get(name)) for value in plain[name]] for name in plain}
        found = LabelTable(path, columns, [f"row {number}" for number in range(1, table.num_rows + 1)])
    else:
        text = _text_of(path)
        found = _from_json_lines(path, text) if suffix in JSON_LINES else _from_csv(path, text)
    if not len(found):
        raise DataError(f"{path}: holds no rows: a row per photograph is needed, below a header like path,label")
    return found


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if content.startswith(COMPRESSED):
        raise DataError(f"{path}: is compressed: unpack it, and give the table that was in it")
    encoding = next((name for mark, name in BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
        if "\0" in text:  # also UTF-16 without its mark, whose ASCII letters are UTF-8 with a zero after each
            line = text.count("\n", 0, text.index("\0")) + 1
            raise DataError(f"{path}: is no text in UTF-8 (line {line} has the byte 0x00): save it as UTF-8")
        return text
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}: is not UTF-8 (line {line} has the byte 0x{content[error.start]:02x}): save it as UTF-8, which "
            'Excel calls "CSV UTF-8"'
        ) from None


def _from_csv(path: Path, text: str) -> LabelTable:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise DataError(f"{path}: is empty: a row per photograph is needed, below a header like path,label")
    if lines[first].lstrip().startswith(("[", "{")):
        raise DataError(f"{path}: looks like JSON: write an object per line, and call it .jsonl")
    if len(lines[first]) > LONGEST_HEADER:
        raise DataError(
            f"{path}: line {first + 1} has {len(lines[first])} characters, and is no header like path,label"
        )
    said = lines[first].strip()
    if said.lower().startswith("sep=") and len(said) == 5:  # as Excel writes it
        separator, first = said[4], first + 1
    else:
        separator = max(SEPARATORS, key=lambda mark: len(_cells(lines[first], mark)))
    rows: list[tuple[int, list[str]]] = []
    body = io.StringIO("\n".join(lines[first:]), newline="")
    reader = csv.reader(body, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        before = first
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((before + 1, cells))
            before = first + reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}: line {before + 1} cannot be read: {error}; is a quotation mark missing?") from None
    header = [name.strip() for name in rows[0][1]] if rows else []
    while header and not header[-1]:
        header.pop()
    _check_header(path, header)
    _check_cells(path, header, separator, rows[1:])
    columns = {
        name: [_cell(cells[place] if place < len(cells) else "") for _, cells in rows[1:]]
        for place, name in enumerate(header)
    }
    return LabelTable(path, columns, [f"line {line}" for line, _ in rows[1:]])


def _cells(line: str, separator: str) -> list[str]:
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _check_header(path: Path, header: Sequence[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {', '.join(map(shown, twice))} twice: give each column its own name")


def _check_cells(path: Path, header: Sequence[str], separator: str, rows: Sequence[tuple[int, list[str]]]) -> None:
    """Raises DataError where rows have more or fewer cells than the header; cells that hold nothing may be too many."""
    wrong = [
        (line, cells) for line, cells in rows if len(cells) < len(header) or any(map(str.strip, cells[len(header) :]))
    ]
    if not wrong:
        return
    examples = "; ".join(
        f"line {line} has {counted(len(cells), 'cell')}: {shown(separator.join(cells))}"
        for line, cells in wrong[:EXAMPLES]
    )
    also = next((mark for mark in SEPARATORS if mark != separator and any(mark in cell for cell in wrong[0][1])), None)
    mixed = f"; is it separated by {SEPARATORS[also]}, unlike the header?" if also is not None else ""
    in_header = next((mark for mark in SEPARATORS if mark != separator and any(mark in name for name in header)), None)
    if in_header is not None:
        cell = next(name for name in header if in_header in name)
        mixed = f"; is the header separated by {SEPARATORS[in_header]} too ({shown(cell)})?"
    elif also is None and len(wrong[0][1]) > len(header):
        mixed = "; a cell that holds the separator itself must stand between quotation marks"
    raise DataError(
        f"{path}: the header has {counted(len(header), 'cell')}, separated by {SEPARATORS.get(separator, separator)}, "
        f"but {counted(len(wrong), 'row')} {'has' if len(wrong) == 1 else 'have'} more or fewer ({examples}){mixed}"
    )


def _cell(text: str) -> str:
    return "" if text.strip() in NOTHING else text


def _from_json_lines(path: Path, text: str) -> LabelTable:
    rows, places, wrong = list[dict[str, Any]](), list[str](), list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            wrong.append(f"line {number} ({error})")
            continue
        if isinstance(row, dict):
            rows.append(row)
            places.append(f"line {number}")
        else:
            wrong.append(f"line {number} ({shown(row)})")
    if wrong:
        more = f" and {len(wrong) - EXAMPLES} more" if len(wrong) > EXAMPLES else ""
        raise DataError(f"{path}: each line must be a JSON object, but got {', '.join(wrong[:EXAMPLES])}{more}")
    plain = {name for row in rows for name, value in row.items() if not isinstance(value, dict | list)}
    nested = [
        f"{name} in {place} is {shown(row[name])}"
        for place, row in zip(places, rows, strict=True)
        for name in sorted(plain & row.keys())
        if isinstance(row[name], dict | list)
    ]
    if nested:
        more = f" and {len(nested) - EXAMPLES} more" if len(nested) > EXAMPLES else ""
        raise DataError(f"{path}: values must be texts or numbers, but {', '.join(nested[:EXAMPLES])}{more}")
    names = dict.fromkeys(name for row in rows for name in row if name in plain)
    return LabelTable(path, {name: [as_text(row.get(name)) for row in rows] for name in names}, places)


def as_text(value: object, names: Sequence[str] | None = None) -> str:
    """Returns a cell as a person reads it. names: of the classes that its numbers stand for; -1 stands for none."""
    if value is None or value != value:  # NaN
        return ""
    if names is not None and isinstance(value, int):
        return names[value] if 0 <= value < len(names) else ""
    return _cell(str(value))


def read_parquet(path: Path) -> pyarrow.Table:
    """Returns the columns of plain values in a Parquet file; raises as `parquet_schema` does."""
    from pyarrow import ArrowException, types
    from pyarrow import parquet as reader

    schema = parquet_schema(path)
    plain = [field.name for field in schema if not (types.is_nested(field.type) or _is_bytes(field.type))]
    try:
        return reader.read_table(path, columns=plain)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from None


def parquet_schema(path: Path) -> pyarrow.Schema:
    """Returns the names and types of a Parquet file's columns.

    Raises DataError where it is none, or pyarrow, which comes with Ray Tune, is missing.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow import parquet as reader
    except ImportError:
        raise DataError(f"{path}: a Parquet file needs pyarrow:  {install_command('pyarrow')}") from None
    try:
        return reader.read_schema(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {' '.join(str(error).split())}") from None


def _is_bytes(kind: pyarrow.DataType) -> bool:
    from pyarrow import types

    return bool(types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind))


def plain_columns(table: pyarrow.Table) -> dict[str, list[Any]]:
    """Returns the columns by name; float32 as the digits that it has."""
    from pyarrow import types

    def values(column: pyarrow.ChunkedArray) -> list[Any]:
        return list(map(str, column.to_numpy())) if types.is_float32(column.type) else column.to_pylist()

    return {name: values(table.column(name)) for name in table.column_names}


def class_names(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """Returns {column: its classes by number}, as Hugging Face's `datasets` writes them into a Parquet file.

    https://huggingface.co/docs/datasets/about_dataset_features
    """
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (TypeError, KeyError, ValueError):  # no such metadata
        return {}
    return {
        name: list(map(str, feature["names"]))
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }
