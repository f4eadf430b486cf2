"""split.csv: which photographs a network was trained, validated and tested on, by content.

A search keeps one in its folder and one in best/, `train` one in its own, so that a network knows its photographs
wherever they have moved, and tells them from others.
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.folder import SAYS_NOTHING, ImageFolder, Said
from tune_cropshield.data.split import TEST, TRAIN, VAL, fold_of, given_folds_of, split_of
from tune_cropshield.errors import UserError
from tune_cropshield.files import printable, read_csv, write_csv

if TYPE_CHECKING:  # PyTorch takes seconds to import: who copies the file does not need it
    from tune_cropshield.data.dataset import LeafData
    from tune_cropshield.data.store import Store

SPLIT_TABLE = "split.csv"
COLUMNS = ("photograph", "class", "split", "sha256", "group")
OF_TABLE = ("fold", "weight", "given_group")  # further columns, each where the table of labels has it
MOST_NAMED = 3  # of the photographs that have changed
LEVELS_ABOVE = 2  # of a run in a search: OUT/best, OUT/t003, OUT/t003/part1, OUT/confirm/t003-s1


@dataclass(frozen=True)
class SplitRow:
    """A photograph: its path inside the folder (forward slashes), its class, its part of the split, its SHA-256.

    group: what it shares with the photographs that the split keeps it together with, "" where it stands alone. said:
    what the table of labels says of it, where there is one.
    """

    photograph: str
    class_name: str
    side: str
    digest: str
    group: str = ""
    said: Said = SAYS_NOTHING

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
    weights = data.weights_N.tolist() if data.weights_N is not None else None
    said = [
        Said(
            data.groups_N[index] if data.groups_N else "",
            data.folds_N[index] if data.folds_N else None,
            weights[index] if weights is not None else None,
        )
        for index in range(len(store))
    ]
    groups = [key if shared[key] else "" for key in data.keys]
    return [
        SplitRow(path, store.classes[label], side_of[index], digest, groups[index], said[index])
        for index, (path, label, digest) in enumerate(zip(store.paths, labels, store.digests, strict=True))
    ]


def write_split(folder: Path, data: LeafData) -> None:
    """Writes split.csv into `folder`. Raises DiskFull."""
    write_rows(folder, split_rows(data))


def write_rows(folder: Path, rows: Iterable[SplitRow]) -> None:
    """Writes these rows as split.csv into `folder`. Raises DiskFull."""
    rows = list(rows)
    said = [(row.said.fold, row.said.weight, row.said.group) for row in rows]
    there = [place for place in range(len(OF_TABLE)) if any(cells[place] not in (None, "") for cells in said)]
    cells = (
        (row.photograph, row.class_name, row.side, row.digest, row.group, *(of_table[place] for place in there))
        for row, of_table in zip(rows, said, strict=True)
    )
    write_csv(folder / SPLIT_TABLE, (*COLUMNS, *(OF_TABLE[place] for place in there)), cells)


def read_split(folder: Path) -> list[SplitRow] | None:
    """Returns the rows of split.csv in `folder`, None where there is none. Raises UserError when it is damaged."""
    path = folder / SPLIT_TABLE
    if not path.is_file():
        return None
    try:
        return [
            SplitRow(row["photograph"], row["class"], row["split"], row["sha256"], row.get("group") or "", _said(row))
            for row in read_csv(path)
        ]
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def _said(row: Mapping[str, str]) -> Said:
    fold, weight = row.get("fold"), row.get("weight")
    return Said(row.get("given_group") or "", int(fold) if fold else None, float(weight) if weight else None)


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
    numbers = [row.said.fold for row in rows]
    if any(number is not None for number in numbers):
        fold = given_folds_of(split, numbers, classes, labels, config.fold)
    else:
        fold = fold_of(split, labels, keys, classes, config.split_seed, config.folds, config.fold)
    side_of = {int(index): side for side in (TRAIN, VAL, TEST) for index in getattr(fold, side)}
    return [replace(row, side=side_of[index]) for index, row in enumerate(rows)]


@dataclass(frozen=True)
class Now:
    """A photograph as it is now.

    side: "train", "val" or "test" where it is given. said: what a table says of it; None where that is not known.
    """

    digest: str
    class_name: str
    side: str | None = None
    said: Said | None = None


def as_now(folder: ImageFolder) -> dict[str, Now]:
    """Returns {path: the photograph} of a folder or a table."""
    return {
        file.path: Now(file.digest, folder.classes[file.label], file.side, folder.said.get(file.path, SAYS_NOTHING))
        for file in folder.files
    }


def stored_now(store: Store) -> dict[str, Now]:
    """Returns {path: the photograph} of decoded ones."""
    labels = store.labels.tolist()
    return {
        path: Now(digest, store.classes[label])
        for path, digest, label in zip(store.paths, store.digests, labels, strict=True)
    }


def what_changed(rows: Sequence[SplitRow], now: Mapping[str, Now]) -> str:
    """Returns which photographs are not those of `rows`, "" where all are the same and are said to be the same.

    In words like "1 photograph is gone: rust/a.jpg; 2 photographs are new: rust/b.jpg, rust/c.jpg".

    Args:
        now: {path: the photograph} of those that are there.
    """
    before = {row.photograph: row for row in rows}
    if before and not {row.digest for row in rows} & {each.digest for each in now.values()}:
        return f"all {len(before)} photographs are gone, and {len(now)} others are there"
    both = [path for path in now if path in before]
    given = VAL in {each.side for each in now.values()}  # else validation photographs are drawn from train
    sides = [
        path
        for path in both
        if (side := now[path].side) is not None
        and before[path].side != side
        and (given or (before[path].side, side) != (VAL, TRAIN))
    ]
    parts = (
        _counted([path for path in before if path not in now], "is gone", "are gone"),
        _counted([path for path in now if path not in before], "is new", "are new"),
        _counted([path for path in both if before[path].digest != now[path].digest], "has changed", "have changed"),
        _counted(
            [path for path in both if before[path].class_name != now[path].class_name],
            "has another label",
            "have other labels",
        ),
        _counted(sides, "is in another part of the split", "are in other parts of the split"),
        *(
            _counted(
                [path for path in both if (said := now[path].said) is not None and not same(before[path].said, said)],
                f"has another {what}",
                f"have other {what}s",
            )
            for what, same in _SAME.items()
        ),
    )
    return "; ".join(part for part in parts if part)


def _same_weight(one: Said, other: Said) -> bool:
    """Tells whether two weights are the same number in fp32, as which they are kept."""
    if one.weight is None or other.weight is None:
        return one.weight is other.weight
    return math.isclose(one.weight, other.weight, rel_tol=1e-6)


_SAME: Mapping[str, Callable[[Said, Said], bool]] = {
    "group": lambda one, other: one.group == other.group,
    "fold": lambda one, other: one.fold == other.fold,
    "weight": _same_weight,
}


def _counted(paths: Sequence[str], one: str, several: str) -> str:
    if not paths:
        return ""
    named = ", ".join(map(printable, paths[:MOST_NAMED])) + (", ..." if len(paths) > MOST_NAMED else "")
    return f"1 photograph {one}: {named}" if len(paths) == 1 else f"{len(paths)} photographs {several}: {named}"
