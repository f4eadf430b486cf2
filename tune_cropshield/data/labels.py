"""A table of labels -> photographs with class, side of the split, group, fold and weight, or what is wrong."""

from __future__ import annotations

import math
import os
import posixpath
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TypeVar

from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.config.faults import shown
from tune_cropshield.config.settings import TABLE_COLUMNS, DataConfig
from tune_cropshield.config.units import counted
from tune_cropshield.data.folder import ListedFolder, Said, excluded, matching
from tune_cropshield.data.label_table import LabelTable, read_label_table
from tune_cropshield.data.layout import NO_FOLDERS, side_of
from tune_cropshield.data.left_out import Kind, LeftOut
from tune_cropshield.data.listing import ListedImage
from tune_cropshield.data.names import PHOTOGRAPHS, is_of_the_system, why_no_photograph
from tune_cropshield.data.split import TEST, given_split_faults
from tune_cropshield.errors import DataError
from tune_cropshield.files import printable

EXAMPLES = 3
OTHER_NAMES = {"path": ("file_name",)}  # that Hugging Face has for a column
Value = TypeVar("Value", bound=Hashable)


def list_labelled(config: DataConfig, *, for_training: bool = True) -> ListedFolder:
    """Returns the photographs that the table `config.labels` names, without reading any.

    Paths begin in `config.dir`, or else in the table's folder. A suffix may be missing where one photograph alone has
    the name. Photographs that lie beside them, and that no row names, are left out.

    Raises DataError with everything that is wrong with the table.
    """
    table = read_label_table(Path(config.labels))
    root = Path(os.path.abspath(config.dir or table.path.parent))
    if not os.path.isdir(root):
        raise DataError(f"there is no folder {str(root)!r} (--data), in which the paths of {table.path} begin")
    return list_rows(table, root, config, for_training=for_training)


def list_rows(table: LabelTable, root: Path, config: DataConfig, *, for_training: bool = True) -> ListedFolder:
    """Returns the photographs of a table whose paths begin in `root`; see `list_labelled`."""
    faults = _Faults(str(table.path))
    columns = _columns(table, config.columns, faults)
    faults.raise_any()
    columns["label"] = [label.strip() for label in columns["label"]]
    files = _Files(root)
    found = [files.find(text) for text in columns["path"]]
    left_out: list[LeftOut] = []
    rows = list(range(len(table)))
    if config.exclude:
        out = {}
        try:
            paths = sorted({it.path for it in found if it.path})
            out = matching(config.exclude, paths, str(table.path), for_training=for_training)
        except DataError as error:
            faults.add(str(error))
        left_out += [excluded(path, pattern) for path, pattern in out.items()]
        rows = [row for row in rows if found[row].path not in out]
    _check_files(table, [found[row] for row in rows], [table.places[row] for row in rows], root, faults)
    labels = {row: columns["label"][row] for row in rows}
    faults.tell(
        "has no label",
        "have no label",
        [f"{table.places[row]} ({printable(found[row].path)})" for row in rows if not labels[row]],
    )
    sides = _sides(table, columns, rows, faults)
    said = _said(table, columns, rows, sides, faults)
    rows, doubled = _once(table, found, rows, labels, sides, said, faults)
    notes = [_note(table, columns, config.columns, len(rows)), *doubled]
    for row in rows:
        if (no_photograph := found[row].no_photograph) is not None:
            left_out.append(LeftOut(found[row].path, *no_photograph, printable(labels[row])))
    rows = [row for row in rows if found[row].image is not None]
    names = {row: printable(config.merge.get(printable(labels[row]), labels[row])) for row in rows if labels[row]}
    classes = tuple(sorted(set(names.values())))
    rows = sorted((row for row in rows if row in names), key=lambda row: found[row].path)
    if for_training:
        unknown = sorted(config.merge.keys() - {printable(labels[row]) for row in rows})
        if unknown:
            faults.add(
                f"merge in [data] names {', '.join(map(repr, unknown))}, which is no label of it; its labels are "
                f"{_some(sorted({printable(labels[row]) for row in rows}))}"
            )
        if len(classes) < 2 and not faults:
            faults.add(f"at least two classes are needed, but all {len(rows)} photographs are {_some(classes)}")
        if sides.keys() >= set(rows):
            numbers = [classes.index(names[row]) for row in rows]
            faults.extend(given_split_faults(classes, numbers, [sides[row] for row in rows]))
        _check_together(found, rows, sides, said, faults)
        notes += [*_folds_given(said, rows, sides), *_numbers_among_names(classes)]
    faults.raise_any()
    number_of = {name: number for number, name in enumerate(classes)}
    images = tuple((image, number_of[names[row]], sides.get(row)) for row in rows if (image := found[row].image))
    left_out += files.unnamed({found[row].path for row in range(len(table))})
    left_out.sort(key=lambda thing: thing.path)
    kept = {found[row].path: said[row] for row in rows if said[row] != Said()}
    return ListedFolder(root, classes, images, NO_FOLDERS, tuple(left_out), table.path.name, kept, tuple(notes))


class _Faults:
    """What is wrong with a table, all of it."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._faults: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, sentence: str) -> None:
        self._faults.append(sentence)

    def extend(self, sentences: Iterable[str]) -> None:
        self._faults += sentences

    def tell(self, one: str, several: str, rows: Sequence[str], remedy: str = "", noun: str = "row") -> None:
        """Adds "3 rows SEVERAL: EXAMPLES; REMEDY", if there is a row."""
        if rows:
            end = f"; {remedy}" if remedy else ""
            self.add(f"{counted(len(rows), noun)} {one if len(rows) == 1 else several}: {_some(rows)}{end}")

    def raise_any(self) -> None:
        """Raises DataError with all of them, a line each."""
        if self._faults:
            raise DataError("\n".join(f"{self._place}: {fault}" for fault in self._faults))


def _some(things: Sequence[str]) -> str:
    more = f" and {len(things) - EXAMPLES} more" if len(things) > EXAMPLES + 1 else ""
    return ", ".join(things[: EXAMPLES if more else EXAMPLES + 1]) + more


def _columns(table: LabelTable, asked_for: Mapping[str, str], faults: _Faults) -> dict[str, list[str]]:
    """Returns {path, label, split ...: the cells of its column} of those that are there and hold anything."""
    found = {}
    plain = {name.casefold(): name for name in reversed(list(table.columns))}
    missing = []
    for role in TABLE_COLUMNS:
        wanted = asked_for.get(role)
        if wanted == "":
            if role in ("path", "label"):
                faults.add(f"columns in [data] leaves {role} unused, but each row must have one")
            continue
        for name in (wanted,) if wanted is not None else (role, *OTHER_NAMES.get(role, ())):
            if (header := plain.get(name.casefold())) is not None:
                found[role] = table.columns[name if name in table.columns else header]
                break
        else:
            if wanted is not None:
                meant = did_you_mean(wanted, table.columns)
                faults.add(f"there is no column {shown(wanted)} for {role}; {meant}its columns are {_listed(table)}")
            elif role in ("path", "label"):
                missing.append(role)
    of_column: dict[int, list[str]] = defaultdict(list)
    for role, cells in found.items():
        of_column[id(cells)].append(role)
    for roles in of_column.values():
        if len(roles) > 1:
            faults.add(f"one column is given for {' and '.join(roles)}: each needs its own")
    if missing:
        example = ",".join(f"{role}=NAME" for role in missing)
        faults.add(
            f"there is no column {' and no column '.join(missing)}; its columns are {_listed(table)}: say which one it "
            f"is (--columns {example})"
        )
    return {role: cells for role, cells in found.items() if role in ("path", "label") or any(cells)}


def _listed(table: LabelTable) -> str:
    return ", ".join(map(shown, table.columns))


@dataclass(frozen=True)
class _Found:
    """A photograph that a row names. path: as it is known from now on. image: None where nothing usable is there.

    no_photograph: why the file is not used. missing: why there is none.
    """

    path: str
    image: ListedImage | None = None
    no_photograph: tuple[Kind, str] | None = None
    missing: str = ""


class _Files:
    """The files that paths in a table mean; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._folders: dict[str, dict[str, os.DirEntry[str]]] = {}
        self._stems: dict[str, dict[str, list[str]]] = {}

    def find(self, text: str) -> _Found:
        """Returns what a path of the table means: with / or \\ between folders, and with a suffix or without."""
        written = text.strip()
        if not written:
            return _Found("", missing="empty")
        path = posixpath.normpath(written.replace("\\", "/"))
        if os.path.isabs(path) and path.startswith(os.path.join(self._root, "")):
            path = os.path.relpath(path, self._root).replace(os.sep, "/")
        folder, name = posixpath.split(path)
        there = self._listed(folder)
        if name in there:
            return self._as_photograph(path, there[name])
        stems = [other for other in self._with_stem(folder, name)]
        if len(stems) == 1:
            return self._as_photograph(posixpath.join(folder, stems[0]), there[stems[0]])
        if stems:
            return _Found(path, missing=f"may be {' or '.join(map(printable, stems))}")
        same = next((other for other in there if other.casefold() == name.casefold()), None)
        return _Found(path, missing="case" if same is not None else "gone")

    def _as_photograph(self, path: str, entry: os.DirEntry[str]) -> _Found:
        try:
            if not entry.is_file():
                return _Found(path, missing="gone" if not entry.is_dir() else "is a folder")
            no_photograph = why_no_photograph(entry.path)
            if no_photograph is not None:
                return _Found(path, no_photograph=no_photograph)
            status = entry.stat()
        except OSError as error:
            return _Found(path, no_photograph=("unreadable", error.strerror or str(error)))
        return _Found(path, ListedImage(path, status.st_size, status.st_mtime_ns))

    def _listed(self, folder: str) -> dict[str, os.DirEntry[str]]:
        if folder not in self._folders:
            try:
                with os.scandir(os.path.join(self._root, folder)) as entries:
                    self._folders[folder] = {entry.name: entry for entry in entries}
            except (OSError, ValueError):  # not there, or no name that a folder can have
                self._folders[folder] = {}
        return self._folders[folder]

    def _with_stem(self, folder: str, stem: str) -> list[str]:
        """Returns the photographs in a folder that are called `stem` without their suffix."""
        if folder not in self._stems:
            stems: dict[str, list[str]] = defaultdict(list)
            for name in sorted(self._listed(folder)):
                first, suffix = os.path.splitext(name)
                if suffix.lower() in PHOTOGRAPHS:
                    stems[first].append(name)
            self._stems[folder] = stems
        return self._stems[folder].get(stem, [])

    def unnamed(self, named: set[str]) -> list[LeftOut]:
        """Returns the photographs beside those that the table names which it does not name."""
        return [
            LeftOut(path, "no row", "no row of the table names it")
            for folder, there in self._folders.items()
            for name in there
            if os.path.splitext(name)[1].lower() in PHOTOGRAPHS
            and not is_of_the_system(name)
            and (path := posixpath.join(folder, name)) not in named
        ]

    def holds(self, folder: str, name: str) -> bool:
        """Tells whether a folder below the root holds a file, with a suffix or without."""
        return name in self._listed(folder) or bool(self._with_stem(folder, name))


def _check_files(
    table: LabelTable, found: Sequence[_Found], places: Sequence[str], root: Path, faults: _Faults
) -> None:
    """Adds what is wrong with the paths."""
    of_kind: dict[str, list[str]] = defaultdict(list)
    for it, place in zip(found, places, strict=True):
        if it.missing in ("empty", "gone", "case", "is a folder"):
            of_kind[it.missing].append(f"{place} ({printable(it.path)})" if it.path else place)
        elif it.missing:
            of_kind["several"].append(f"{place} ({printable(it.path)} {it.missing})")
    faults.tell("has no path", "have no path", of_kind["empty"])
    faults.tell("names a folder", "name folders", of_kind["is a folder"], "a photograph is needed")
    faults.tell("names several photographs", "name several photographs", of_kind["several"], "write the whole name")
    faults.tell(
        "differs from a file's name in upper and lower case alone",
        "differ from files' names in upper and lower case alone",
        of_kind["case"],
        "write them as the files are called",
    )
    gone = [it.path for it in found if it.missing == "gone"]
    faults.tell(
        f"names a photograph that is not in {str(root)!r}",
        f"name photographs that are not in {str(root)!r}",
        of_kind["gone"],
        _remedy_for_missing(table, root, gone) if gone else "",
    )


def _remedy_for_missing(table: LabelTable, root: Path, gone: Sequence[str]) -> str:
    """Returns where the photographs may be meant to lie, or that it has to be said."""
    foreign = [path for path in gone if PureWindowsPath(path).is_absolute() or PurePosixPath(path).is_absolute()]
    if foreign:
        return "write them without the folders of another machine, as they lie below --data DIR"
    first = PurePosixPath(gone[0])
    files = _Files(root)
    places = [table.path.parent] if table.path.parent.resolve() != root else []
    places += [root / entry.name for entry in sorted(os.scandir(root), key=lambda entry: entry.name) if entry.is_dir()]
    for place in places:
        folder = posixpath.join(os.path.relpath(place, root).replace(os.sep, "/"), str(first.parent))
        if files.holds(posixpath.normpath(folder), first.name):
            return f"are those in {str(place)!r} meant (--data {shlex.quote(str(place))})?"
    return "say in which folder the paths begin (--data DIR), or mend them"


def _sides(table: LabelTable, columns: Mapping[str, list[str]], rows: Sequence[int], faults: _Faults) -> dict[int, str]:
    """Returns {row: its side of the split}; nothing where the table names none."""
    if "split" not in columns:
        return {}
    cells = {row: columns["split"][row].strip() for row in rows}
    sides = {row: side for row, cell in cells.items() if (side := side_of(cell)) is not None}
    unknown = Counter(cell for row, cell in cells.items() if cell and row not in sides)
    if unknown:
        names = [f"{shown(name)} ({counted(count, 'row')})" for name, count in unknown.most_common()]
        faults.add(
            f"the split must be train, val or test (training, valid, validation and the like are understood), but got "
            f"{_some(names)}"
        )
    faults.tell(
        "names no part of the split",
        "name no part of the split",
        [table.places[row] for row, cell in cells.items() if not cell],
        'give each one, or leave the column unused (columns = {split = ""} in [data])',
    )
    return sides


def _said(
    table: LabelTable,
    columns: Mapping[str, list[str]],
    rows: Sequence[int],
    sides: Mapping[int, str],
    faults: _Faults,
) -> dict[int, Said]:
    """Returns {row: its group, fold and weight}."""
    folds, weights = dict[int, int](), dict[int, float]()

    def read(role: str, parse: Callable[[str], object], must: str, needed: Callable[[int], bool]) -> dict[int, object]:
        if role not in columns:
            return {}
        cells = {row: columns[role][row].strip() for row in rows}
        values = {row: parse(cell) for row, cell in cells.items() if cell}
        wrong = [f"{shown(cells[row])} in {table.places[row]}" for row, value in values.items() if value is None]
        faults.tell(f"has another {role}", f"have another {role}", wrong, f"it must be {must}")
        empty = [table.places[row] for row, cell in cells.items() if not cell and needed(row)]
        remedy = f'give each one, or leave the column unused (columns = {{{role} = ""}} in [data])'
        faults.tell(f"has no {role}", f"have no {role}", empty, remedy)
        return {row: value for row, value in values.items() if value is not None}

    given = read("fold", _whole_number, "a whole number from 0", lambda row: sides.get(row) != TEST)
    numbers = sorted({value for row, value in given.items() if sides.get(row) != TEST})  # type: ignore[type-var]
    if len(numbers) == 1:
        faults.add(f"all rows are in fold {numbers[0]}, but folds are for training on the others: two are needed")
    folds = {row: numbers.index(value) for row, value in given.items() if sides.get(row) != TEST}
    weights = read("weight", _positive, "a number above 0", lambda row: True)  # type: ignore[assignment]
    far = [f"{weight:g} in {table.places[row]}" for row, weight in weights.items() if not 1e-6 <= weight <= 1e6]
    faults.tell("has a weight", "have weights", far, "they must lie between 1e-6 and 1e6, or a loss overflows")
    groups = [cell.strip() for cell in columns["group"]] if "group" in columns else []
    return {row: Said(groups[row] if groups else "", folds.get(row), weights.get(row)) for row in rows}


def _whole_number(text: str) -> int | None:
    """Returns a number of a fold, which pandas may have written as 1.0; None for anything else."""
    plain = text.removesuffix(".0")
    return int(plain) if plain.isascii() and plain.isdecimal() and len(plain) < 10 else None


def _positive(text: str) -> float | None:
    try:
        weight = float(text)
    except ValueError:
        return None
    return weight if math.isfinite(weight) and weight > 0 and "_" not in text else None


def _once(
    table: LabelTable,
    found: Sequence[_Found],
    rows: Sequence[int],
    labels: Mapping[int, str],
    sides: Mapping[int, str],
    said: Mapping[int, Said],
    faults: _Faults,
) -> tuple[list[int], list[str]]:
    """Returns the rows with each photograph once, and that some are there twice; contradictory ones are at fault."""
    of_path: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        if found[row].path:
            of_path[found[row].path].append(row)
    contradict, doubled = [], 0
    for path, same in of_path.items():
        told = {(labels[row], sides.get(row), said[row]): row for row in reversed(same)}
        if len(told) > 1:
            first, second = sorted(told.values())[:2]
            contradict.append(
                f"{printable(path)} ({_differ(labels, sides, said, first)} in {table.places[first]}, "
                f"{_differ(labels, sides, said, second)} in {table.places[second]})"
                if labels[first] != labels[second]
                else f"{printable(path)} ({table.places[first]} and {table.places[second]})"
            )
        doubled += len(same) - 1 if len(told) == 1 else 0
    faults.tell(
        "stands in rows that contradict each other",
        "stand in rows that contradict each other",
        contradict,
        "keep one row of each",
        "photograph",
    )
    notes = (
        [
            f"{table.path.name}: {counted(doubled, 'row')} {'repeats' if doubled == 1 else 'repeat'} another one, and "
            "each photograph counts once"
        ]
        if doubled
        else []
    )
    return [same[0] for same in of_path.values()], notes


def _differ(labels: Mapping[int, str], sides: Mapping[int, str], said: Mapping[int, Said], row: int) -> str:
    return printable(labels[row]) or "nothing"


def _check_together(
    found: Sequence[_Found],
    rows: Sequence[int],
    sides: Mapping[int, str],
    said: Mapping[int, Said],
    faults: _Faults,
) -> None:
    """Adds the groups of which a given split, or given folds, part the photographs."""
    for where, place_of in (
        ("part of the split", {row: sides[row] for row in rows if row in sides}),
        ("fold", {row: f"fold {fold}" for row in rows if (fold := said[row].fold) is not None}),
    ):
        members: dict[str, dict[str, int]] = defaultdict(dict)
        for row, place in place_of.items():
            if said[row].group:
                members[said[row].group].setdefault(place, row)
        across = [
            f"{shown(group)} ({', '.join(f'{place}: {printable(found[row].path)}' for place, row in at.items())})"
            for group, at in members.items()
            if len(at) > 1
        ]
        faults.tell(
            f"lies in more than one {where}, so the accuracy would be too high",
            f"lie in more than one {where}, so the accuracy would be too high",
            across,
            'put each into one, or leave the column unused (columns = {group = ""} in [data])',
            "group",
        )


def _note(table: LabelTable, columns: Mapping[str, list[str]], asked_for: Mapping[str, str], count: int) -> str:
    """Returns which columns were read, and which were not."""
    names = {name.casefold() for name in table.columns}
    used = [
        asked_for.get(role) or next((n for n in (role, *OTHER_NAMES.get(role, ())) if n in names), role)
        for role in columns
    ]
    known = {name.casefold() for name in (*used, *OTHER_NAMES["path"])}
    unused = [name for name in table.columns if name.casefold() not in known]
    also = f"; not used: {', '.join(map(printable, unused))}" if unused else ""
    return f"labels of {counted(count, 'photograph')} from {table.path.name} (columns {', '.join(used)}{also})"


def _folds_given(said: Mapping[int, Said], rows: Sequence[int], sides: Mapping[int, str]) -> list[str]:
    """Returns how many folds the table deals the photographs into, and what uses them."""
    folds = 1 + max((fold for row in rows if (fold := said[row].fold) is not None), default=-1)
    if not folds:
        return []
    no_test = "" if TEST in sides.values() else ", without test photographs, as all are in a fold"
    return [f"the table deals the photographs into {folds} folds: folds = {folds} in [search] uses them{no_test}"]


def _numbers_among_names(classes: Sequence[str]) -> list[str]:
    """Returns that some classes are numbers where others are names, which is probably a slip."""
    numbers = [name for name in classes if _is_number(name)]
    if not numbers or len(numbers) == len(classes):
        return _same_number(classes)
    return [
        f"{_some(list(map(repr, numbers)))} {'looks' if len(numbers) == 1 else 'look'} like "
        f"{'a number' if len(numbers) == 1 else 'numbers'} among the labels: a class of its own, as it is written"
    ]


def _same_number(classes: Sequence[str]) -> list[str]:
    by_value = sorted(classes, key=float) if all(map(_is_number, classes)) else []
    twice = [f"{one!r} and {other!r}" for one, other in pairwise(by_value) if float(one) == float(other)]
    if not twice:
        return []
    return [f"labels {_some(twice)} are the same number written in two ways: if they are one class, join them (merge)"]


def _is_number(name: str) -> bool:
    try:
        return math.isfinite(float(name)) and "_" not in name
    except ValueError:
        return False
