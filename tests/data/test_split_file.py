"""split.csv: what a network was trained on, by content."""

from __future__ import annotations

import csv
import hashlib
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.dataset import open_data
from tune_cropshield.data.split_file import SplitRow, find_split, read_split, rows_of_fold, split_rows, write_split
from tune_cropshield.errors import UserError


def test_it_holds_every_photograph_with_its_side_and_its_content(
    drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    data = open_data(DataConfig(dir=str(drawn_leaves), test_share=0.2), {32}, shared_cache)
    write_split(tmp_path, data)

    with open(tmp_path / "split.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["photograph", "class", "split", "sha256", "group"]
    assert Counter(row["split"] for row in rows) == {"train": 84, "val": 12, "test": 24}
    for row in rows[:5]:
        assert hashlib.sha256((drawn_leaves / row["photograph"]).read_bytes()).hexdigest() == row["sha256"]
        assert row["photograph"].split("/")[0] == row["class"]
    assert {row["photograph"] for row in rows if row["split"] == "val"} == {
        data.store.paths[index] for index in data.split.val
    }


def test_a_run_finds_that_of_its_search_and_its_own_first(tmp_path: Path) -> None:
    line = "photograph,class,split,sha256\na/{}.jpg,a,val,00\n"
    for place in ("best", "t003", "confirm/t003-s1"):
        (tmp_path / "search" / place).mkdir(parents=True)
    assert find_split(tmp_path / "search" / "best") is None

    (tmp_path / "search" / "split.csv").write_text(line.format("search"))
    (tmp_path / "search" / "best" / "split.csv").write_text(line.format("best"))

    assert find_split(tmp_path / "search" / "t003") == [SplitRow("a/search.jpg", "a", "val", "00")]
    assert find_split(tmp_path / "search" / "confirm" / "t003-s1") == [SplitRow("a/search.jpg", "a", "val", "00")]
    assert find_split(tmp_path / "search" / "best") == [SplitRow("a/best.jpg", "a", "val", "00")]


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_text("photograph\na/1.jpg\n")

    with pytest.raises(UserError, match=r"split\.csv cannot be read"):
        read_split(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a file name be no Unicode")
def test_names_that_are_no_unicode_and_names_with_commas_survive(
    drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    leaves = tmp_path / "leaves"
    for folder in sorted(drawn_leaves.iterdir()):
        (leaves / folder.name).mkdir(parents=True)
        for photograph in sorted(folder.iterdir())[:10]:
            (leaves / folder.name / photograph.name).write_bytes(photograph.read_bytes())
    first, second, *_ = sorted((leaves / "rust").iterdir())
    first.rename(first.with_name('a, "b".jpg'))
    os.rename(second, os.fsencode(second.parent) + b"/\xff.jpg")
    data = open_data(DataConfig(dir=str(leaves)), {32}, shared_cache)

    write_split(tmp_path, data)

    assert [row.photograph for row in read_split(tmp_path) or []] == list(data.store.paths)
    assert {'rust/a, "b".jpg', "rust/\udcff.jpg"} < set(data.store.paths)


def test_its_rows_tell_the_fold_that_a_training_takes(drawn_leaves: Path, shared_cache: Path, tmp_path: Path) -> None:
    whole, fold = DataConfig(dir=str(drawn_leaves)), DataConfig(dir=str(drawn_leaves), folds=3, fold=1)
    write_split(tmp_path, open_data(whole, {32}, shared_cache))

    told = rows_of_fold(read_split(tmp_path) or [], fold)

    assert told == split_rows(open_data(fold, {32}, shared_cache)) == rows_of_fold(told, fold)
    assert Counter(row.side for row in told) == {"train": 72, "val": 36, "test": 12}
