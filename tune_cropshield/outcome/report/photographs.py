"""The photographs: classes and their sizes, the split, an example of each class, and what was left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.background import background_in
from tune_cropshield.data.class_sizes import always_the_largest, validation_is_small, validation_line
from tune_cropshield.data.dataset import LeafData
from tune_cropshield.data.left_out import Kind, LeftOut, left_out_lines, read_left_out
from tune_cropshield.data.look_alikes import look_alike_lines
from tune_cropshield.data.split import TEST, TRAIN, VAL
from tune_cropshield.data.split_file import SplitRow, read_split, rows_of_fold, split_rows
from tune_cropshield.errors import UserError
from tune_cropshield.files import printable
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.judgement import data_uri, thumbnail
from tune_cropshield.outcome.report.page import Block, Gallery, Section, Table, Text, Thumbnail
from tune_cropshield.outcome.report.search_record import SearchRecord
from tune_cropshield.outcome.trained import read_config
from tune_cropshield.training.run_folder import PART, network_folder

TITLE = "The photographs"
MOST_EXAMPLES = 60  # classes; a picture takes 3 to 5 kB of the page
MOST_LEFT_OUT = 200  # rows of the table
LOST: tuple[Kind, ...] = ("unreadable", "format")  # photographs, as against whatever else lies there


def section(record: SearchRecord, data: LeafData | str) -> Section:
    """Returns the section. data: the photographs, or why they cannot be opened."""
    try:
        rows = read_split(record.folder)
    except UserError as error:
        return Section("photographs", TITLE, [Text(f"{error}.")])
    if rows is None and isinstance(data, LeafData):
        rows = split_rows(data)
    if rows is None:
        return Section("photographs", TITLE, [Text(f"The photographs cannot be shown: {data}.")])
    fold = None if record.winner is None else _fold(network_folder(record.winner.folder))
    rows = rows_of_fold(rows, fold) if fold is not None else rows
    sizes = Counter(row.class_name for row in rows)
    sides = Counter((row.class_name, row.side) for row in rows)
    classes = sorted(sizes)
    validated = {name: sides[name, VAL] for name in classes if sides[name, VAL]}
    blocks: list[Block] = [Text(_counts(rows, sizes), strong=True), Text(_imbalance(sizes, validated))]
    if fold is not None:
        blocks.append(
            Text(
                f"This is the split in {PART}{fold.fold} of the winner, whose network is kept: each of its "
                f"{fold.folds} parts is validated on another fold of the training and validation photographs."
            )
        )
    if validation_is_small(validated):
        blocks.append(_sentence(validation_line(validated)))
    blocks += map(_sentence, look_alike_lines(sizes))
    if isinstance(data, str):
        blocks.append(Text(f"The pictures cannot be shown: {data}."))
    left_out = read_left_out(record.folder) or (data.left_out if isinstance(data, LeafData) else ())
    blocks += map(_sentence, left_out_lines(left_out))
    blocks.append(_table(classes, sizes, sides, Counter(thing.class_name for thing in left_out if thing.kind in LOST)))
    if left_out:
        blocks.append(_left_out_table(left_out))
    if isinstance(data, LeafData):
        if (background := background_in(data)) is not None:
            blocks.append(_sentence(background.told))
        blocks.append(_examples(classes, rows, data))
    return Section("photographs", TITLE, blocks)


def _fold(run_dir: Path) -> DataConfig | None:
    """Returns what says which fold a run was validated on; None where it is none, or not known."""
    try:
        config = read_config(run_dir).data
    except UserError:
        return None
    return config if config.folds > 1 else None


def _sentence(line: str) -> Text:
    return Text(f"{line[0].upper()}{line[1:]}.")


def _counts(rows: Sequence[SplitRow], sizes: Counter[str]) -> str:
    side = Counter(row.side for row in rows)
    return (
        f"{len(rows)} photographs in {len(sizes)} classes: {side[TRAIN]} for training, {side[VAL]} for "
        f"validation, {side[TEST]} for the test."
    )


def _imbalance(sizes: Mapping[str, int], validated: Mapping[str, int]) -> str:
    """Returns how unequal the classes are, and what naming only the largest would score."""
    largest, smallest = max(sizes, key=lambda name: sizes[name]), min(sizes, key=lambda name: sizes[name])
    if sizes[largest] == sizes[smallest]:
        equal = f"All classes have the same number of photographs, {sizes[largest]}."
    else:
        equal = (
            f"The largest class, {largest}, has {sizes[largest]} photographs, "
            f"{words.number(sizes[largest] / sizes[smallest])} times as many as the smallest, {smallest}, with "
            f"{sizes[smallest]}."
        )
    always = always_the_largest(validated)
    return (
        f"{equal} A network that always answers {always.largest} is right on {words.percent(always.accuracy)} of the "
        f"validation photographs (macro F1 {always.macro_f1:.3f}). Its balanced accuracy is "
        f"{always.balanced_accuracy:.3f}."
    )


def _table(classes: Sequence[str], sizes: Counter[str], sides: Counter[tuple[str, str]], lost: Counter[str]) -> Table:
    total = sum(sizes.values())
    rows = [
        (
            name,
            str(sizes[name]),
            words.percent(sizes[name] / total),
            *(str(sides[name, side]) for side in (TRAIN, VAL, TEST)),
            *([str(lost[name])] if lost else []),
        )
        for name in classes
    ]
    header = ("class", "photographs", "of all", "to train", "to validate", "to test", *(["left out"] if lost else []))
    return Table(header, rows, "Photographs per class")


def _left_out_table(left_out: Sequence[LeftOut]) -> Table:
    rows = [(printable(thing.path), thing.class_name, thing.reason) for thing in left_out[:MOST_LEFT_OUT]]
    first = f", the first {len(rows)} of {len(left_out)}" if len(rows) < len(left_out) else ""
    return Table(
        ("file or folder", "class", "why"),
        rows,
        f"What was left out{first} (left_out.csv)",
        text_columns=3,
        folded=True,
    )


def _examples(classes: Sequence[str], rows: Sequence[SplitRow], data: LeafData) -> Gallery:
    """Returns a training photograph of each class, its first by name that is still what it was."""
    named = zip(data.store.paths, data.store.digests, strict=True)
    place = {path_and_digest: index for index, path_and_digest in enumerate(named)}
    first: dict[str, SplitRow] = {}
    for row in rows:
        if row.side == TRAIN and (row.photograph, row.digest) in place:
            first.setdefault(row.class_name, row)
    thumbnails = [
        Thumbnail(
            data_uri(thumbnail(data.store.images[place[first[name].photograph, first[name].digest]])),
            f"An example of {name}",
            (name, printable(first[name].photograph)),
        )
        for name in classes[:MOST_EXAMPLES]
        if name in first
    ]
    return Gallery("A training photograph of each class", thumbnails)
