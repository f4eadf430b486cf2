"""split.csv: which photographs a network was trained, validated and tested on, by content.

A search keeps one in its folder and one in best/, `train` one in its own, so that a network knows its photographs
wherever they have moved, and tells them from others.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.split import TEST, TRAIN, VAL, fold_of, split_of
from tune_cropshield.errors import UserError
from tune_cropshield.files import printable, read_csv, write_csv

if TYPE_CHECKING:  # PyTorch takes seconds to import: who copies the file does not need it
    from tune_cropshield.data.dataset import LeafData

SPLIT_TABLE = "split.csv"
COLUMNS = ("photograph", "class", "split", "sha256", "group")
MOST_NAMED = 3  # of the photographs that have changed
LEVELS_ABOVE = 2  # of a run in a search: OUT/best, OUT/t003, OUT/t003/part1, OUT/confirm/t003-s1


@dataclass(frozen=True)
class SplitRow:
    """A photograph: its path inside the folder (forward slashes), its class, its part of the split, its SHA-256.

    group: what it shares with the photographs that the split keeps it together with, "" where it stands alone.
    """

    photograph: str
    class_name: str
    side: str
    digest: str
    group: str = ""

    @property
    def key(self) -> str:
        """What the split goes by: photographs with equal keys stay together."""
        return self.group or self.digest


def split_rows(data: LeafData) -> list[SplitRow]:
    """Returns the photographs of `data` in the order of its store."""
    side_of = {int(index): side for side in (TRAIN, VAL, TEST) for index in getattr(data.split, side)}
    store = data.store
    labels = store.labels.tolist()
    contents: dict[str, set[str]] = defaultdict(set)
    for key, digest in zip(data.keys, store.digests, strict=True):
        contents[key].add(digest)
    shared = {key: len(digests) > 1 for key, digests in contents.items()}
    return [
        SplitRow(
            path, store.classes[label], side_of[index], digest, data.keys[index] if shared[data.keys[index]] else ""
        )
        for index, (path, label, digest) in enumerate(zip(store.paths, labels, store.digests, strict=True))
    ]


def write_split(folder: Path, data: LeafData) -> None:
    """Writes split.csv into `folder`. Raises DiskFull."""
    write_rows(folder, split_rows(data))


def write_rows(folder: Path, rows: Iterable[SplitRow]) -> None:
    """Writes these rows as split.csv into `folder`. Raises DiskFull."""
    cells = ((row.photograph, row.class_name, row.side, row.digest, row.group) for row in rows)
    write_csv(folder / SPLIT_TABLE, COLUMNS, cells)


def read_split(folder: Path) -> list[SplitRow] | None:
    """Returns the rows of split.csv in `folder`, None where there is none. Raises UserError when it is damaged."""
    path = folder / SPLIT_TABLE
    if not path.is_file():
        return None
    try:
        return [
            SplitRow(row["photograph"], row["class"], row["split"], row["sha256"], row.get("group") or "")
            for row in read_csv(path)
        ]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def find_split(run_dir: Path) -> list[SplitRow] | None:
    """Returns what the network in `run_dir` was trained on: from its own folder, or that of its search.

    None for runs of versions that kept no split.csv.
    """
    place = run_dir.absolute()
    for folder in (place, *list(place.parents)[:LEVELS_ABOVE]):
        if (rows := read_split(folder)) is not None:
            return rows
    return None


def rows_of_fold(rows: Sequence[SplitRow], config: DataConfig) -> list[SplitRow]:
    """Returns the same photographs on the sides of the fold that `config` asks for; as they are where it asks for none.

    Raises DataError where there is no such fold.
    """
    if config.folds == 1:
        return list(rows)
    classes = sorted({row.class_name for row in rows})
    number_of = {name: number for number, name in enumerate(classes)}
    labels, keys = [number_of[row.class_name] for row in rows], [row.key for row in rows]
    split = split_of([row.side for row in rows])
    fold = fold_of(split, labels, keys, classes, config.split_seed, config.folds, config.fold)
    side_of = {int(index): side for side in (TRAIN, VAL, TEST) for index in getattr(fold, side)}
    return [replace(row, side=side_of[index]) for index, row in enumerate(rows)]


def what_changed(rows: Sequence[SplitRow], now: Mapping[str, str]) -> str:
    """Returns which photographs are not those of `rows`, "" where all are the same.

    In words like "1 photograph is gone: rust/a.jpg; 2 photographs are new: rust/b.jpg, rust/c.jpg".

    Args:
        now: {path: SHA-256} of those that are there.
    """
    before = {row.photograph: row.digest for row in rows}
    if before and not set(before.values()) & set(now.values()):
        return f"all {len(before)} photographs are gone, and {len(now)} others are there"
    parts = (
        _counted([path for path in before if path not in now], "is gone", "are gone"),
        _counted([path for path in now if path not in before], "is new", "are new"),
        _counted([path for path in now if before.get(path, now[path]) != now[path]], "has changed", "have changed"),
    )
    return "; ".join(part for part in parts if part)


def _counted(paths: Sequence[str], one: str, several: str) -> str:
    if not paths:
        return ""
    named = ", ".join(map(printable, paths[:MOST_NAMED])) + (", ..." if len(paths) > MOST_NAMED else "")
    return f"1 photograph {one}: {named}" if len(paths) == 1 else f"{len(paths)} photographs {several}: {named}"
