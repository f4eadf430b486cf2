"""Tables of labels: what is read from them, and one text with everything that is wrong with one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tune_cropshield.api.cache import cache
from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.dataset import open_data
from tune_cropshield.data.folder import Said
from tune_cropshield.data.left_out import left_out_lines
from tune_cropshield.data.remarks import remarks
from tune_cropshield.data.sources import check_photographs, folders_name_classes, list_photographs, scan_photographs
from tune_cropshield.data.split_file import as_now, read_split, what_changed, write_split
from tune_cropshield.errors import DataError

NAMES = [f"{number}.jpg" for number in range(12)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve photographs, 0.jpg to 11.jpg, of different colours."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (20, 20), (20 * number, 255 - 20 * number, 40)).save(folder / name)
    return folder


def table(photos: Path, *lines: str, name: str = "labels.csv", encoding: str = "utf-8") -> DataConfig:
    """Returns [data] with a table of these lines beside the folder of photographs."""
    path = photos.parent / name
    path.write_bytes("\n".join(lines).encode(encoding))
    return DataConfig(labels=str(path), dir=str(photos))


def placed(config: DataConfig) -> dict[str, tuple[str, str | None]]:
    """Returns {path: (class, side)}."""
    listed = list_photographs(config)
    return {image.path: (listed.classes[label], side) for image, label, side in listed.images}


def fault(config: DataConfig) -> str:
    """Returns what is wrong, with the place shortened."""
    with pytest.raises(DataError) as caught:
        check_photographs(config)
    return str(caught.value).replace(config.labels, "TABLE").replace(config.dir, "DIR")


@pytest.mark.parametrize(
    ("encoding", "lines"),
    [
        (
            "utf-8",
            [
                "path,label,split",
                "0.jpg,Blatt-ü,train",
                "1.jpg,healthy,train",
                "2.jpg,Blatt-ü,val",
                "3.jpg,healthy,val",
            ],
        ),
        (
            "utf-8-sig",
            [
                "path;label;split",
                "0.jpg;Blatt-ü;Training",
                "1.jpg;healthy;TRAIN",
                "2.jpg;Blatt-ü;valid",
                "3.jpg;healthy;validation",
            ],
        ),
        (
            "utf-16",
            [
                "path\tlabel\tsplit",
                "0.jpg\tBlatt-ü\ttrain",
                "1.jpg\thealthy\ttrain",
                "2.jpg\tBlatt-ü\tval",
                "3.jpg\thealthy\tval",
            ],
        ),
        (
            "utf-8",
            [
                "sep=;",
                "Path; Label; Split",
                '"0.jpg"; "Blatt-ü"; "train"',
                "1.jpg; healthy; train",
                "",
                "./2.jpg; Blatt-ü; val",
                ";;",
                "3; healthy; dev",
            ],
        ),
        (
            "utf-8",
            [
                "id,path,label,split\r",
                "a,0.jpg,Blatt-ü,train\r",
                "b,1.jpg,healthy,train\r",
                "c,2.jpg,Blatt-ü,val\r",
                "d,3.jpg,healthy,val\r",
            ],
        ),
    ],
)
def test_a_csv_is_read_in_whatever_form_programs_write_it(photos: Path, encoding: str, lines: list[str]) -> None:
    assert placed(table(photos, *lines, encoding=encoding)) == {
        "0.jpg": ("Blatt-ü", "train"),
        "1.jpg": ("healthy", "train"),
        "2.jpg": ("Blatt-ü", "val"),
        "3.jpg": ("healthy", "val"),
    }


def test_paths_begin_in_the_tables_folder_and_may_have_backslashes_or_no_suffix(photos: Path) -> None:
    config = table(
        photos, "path,label", r"photos\0.jpg,a", "photos/1,b", f"{photos / '2.jpg'},b", "./photos/../photos/3.jpg,a"
    )
    listed = list_photographs(config.model_copy(update={"dir": ""}))
    assert [image.path for image, _, _ in listed.images] == [
        "photos/0.jpg",
        "photos/1.jpg",
        "photos/2.jpg",
        "photos/3.jpg",
    ]
    assert listed.root == photos.parent


def test_columns_of_other_names_are_read(photos: Path) -> None:
    config = table(photos, "image_id,disease,label,plant", "0,rust,9,p1", "1,healthy,9,p2")
    named = config.model_copy(update={"columns": {"path": "image_id", "label": "disease", "group": "plant"}})
    assert placed(named) == {"0.jpg": ("rust", None), "1.jpg": ("healthy", None)}
    assert list_photographs(named).said == {"0.jpg": Said(group="p1"), "1.jpg": Said(group="p2")}
    assert list_photographs(named).notes == (
        "labels of 2 photographs from labels.csv (columns image_id, disease, plant; not used: label)",
    )


def test_labels_stay_what_a_person_reads(photos: Path) -> None:
    assert list_photographs(table(photos, "path,label", "0.jpg,1", "1.jpg,001", "2.jpg,1.0")).classes == (
        "001",
        "1",
        "1.0",
    )
    notes = list_photographs(table(photos, "path,label", "0.jpg,1", "1.jpg,001", "2.jpg,2")).notes
    assert notes[1:] == (
        "labels '001' and '1' are the same number written in two ways: if they are one class, join them (merge)",
    )
    notes = list_photographs(table(photos, "path,label", "0.jpg,NA", "1.jpg,7", "2.jpg,rust")).notes
    assert notes[1:] == ("'7' looks like a number among the labels: a class of its own, as it is written",)


def test_a_parquet_table_is_read_as_a_csv_is(photos: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    path = photos.parent / "labels.parquet"
    columns = {
        "path": ["0.jpg", "1.jpg", "2.jpg"],
        "label": [1.0, 2.0, 1.0],
        "weight": pyarrow.array([0.1, 1, 2], pyarrow.float32()),
    }
    parquet.write_table(pyarrow.table({**columns, "picture": [b"x", b"y", b"z"]}), path)
    config = DataConfig(labels=str(path), dir=str(photos))
    assert placed(config) == {"0.jpg": ("1.0", None), "1.jpg": ("2.0", None), "2.jpg": ("1.0", None)}
    assert [said.weight for said in list_photographs(config).said.values()] == [0.1, 1.0, 2.0]

    parquet.write_table(pyarrow.table({"path": ["0.jpg", "1.jpg"], "label": ["a", None]}), path)
    assert fault(config) == "TABLE: 1 row has no label: row 2 (1.jpg)"
    path.write_bytes(b"no parquet")
    assert fault(config).startswith("TABLE: cannot be read as Parquet: ")


def test_json_lines_are_read_as_a_csv_is(photos: Path) -> None:
    config = table(
        photos, '{"path": "0.jpg", "label": "ü", "box": [1]}', "", '{"label": 3, "path": "1.jpg"}', name="labels.jsonl"
    )
    assert placed(config) == {"0.jpg": ("ü", None), "1.jpg": ("3", None)}
    assert fault(table(photos, "{", "[1]", name="labels.jsonl")) == (
        "TABLE: each line must be a JSON object, but got line 1 (Expecting property name enclosed in "
        "double quotes: line 1 "
        "column 2 (char 1)), line 2 ([1])"
    )


def test_everything_that_is_wrong_with_a_table_is_told_at_once(photos: Path) -> None:
    config = table(
        photos,
        "path,label,split,group,fold,weight",
        "0.jpg,rust,train,p1,0,1",
        "1.jpg,rust,val,p1,1,1",
        "gone.jpg,rust,train,p2,0,1",
        "2.jpg,,train,p3,one,1",
        "3.jpg,rust,train,p4,0,-1",
        "0.jpg,healthy,train,p1,0,1",
        ",healthy,val,p5,1,1",
        "4.jpg,healthy,val,p5,,nought",
    )
    assert fault(config).splitlines() == [
        "TABLE: 1 row has no path: line 8",
        "TABLE: 1 row names a photograph that is not in 'DIR': line 4 (gone.jpg); say in which folder the paths begin "
        "(--data DIR), or mend them",
        "TABLE: 1 row has no label: line 5 (2.jpg)",
        'TABLE: 1 row has another fold: "one" in line 5; it must be a whole number from 0',
        'TABLE: 1 row has no fold: line 9; give each one, or leave the column unused (columns = {fold = ""} in [data])',
        'TABLE: 2 rows have another weight: "-1" in line 6, "nought" in line 9; it must be a number above 0',
        "TABLE: 1 photograph stands in rows that contradict each other: 0.jpg (rust in line 2, healthy "
        "in line 7); keep one row "
        "of each",
        "TABLE: the given split has no train photographs of 'healthy': each class must be in train and in val",
        "TABLE: 1 group lies in more than one part of the split, so the accuracy would be too high: "
        '"p1" (train: 0.jpg, val: '
        '1.jpg); put each into one, or leave the column unused (columns = {group = ""} in [data])',
        'TABLE: 1 group lies in more than one fold, so the accuracy would be too high: "p1" (fold 0: '
        "0.jpg, fold 1: 1.jpg); put "
        'each into one, or leave the column unused (columns = {group = ""} in [data])',
    ]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            ["file,class", "0.jpg,a"],
            (
                'TABLE: there is no column path and no column label; its columns are "file", "class": say which '
                "one it is (--columns path=NAME,label=NAME)"
            ),
        ),
        (["path,label,label", "0.jpg,a,b"], 'TABLE: the header names "label" twice: give each column its own name'),
        (
            ["path,label", "0.jpg;a", "1.jpg;b"],
            (
                "TABLE: the header has 2 cells, separated by commas, but 2 rows have more or fewer (line 2 has "
                '1 cell: "0.jpg;a"; line 3 has 1 cell: "1.jpg;b"); is it separated by semicolons, unlike the '
                "header?"
            ),
        ),
        (
            ["path,label", "0.jpg,a,b"],
            (
                "TABLE: the header has 2 cells, separated by commas, but 1 row has more or fewer (line 2 has 3 "
                'cells: "0.jpg,a,b"); a cell that holds the separator itself must stand between quotation marks'
            ),
        ),
        (
            ["path,label", '0.jpg,"a', "1.jpg,b"],
            "TABLE: line 2 cannot be read: unexpected end of data; is a quotation mark missing?",
        ),
        (["path,label"], "TABLE: holds no rows: a row per photograph is needed, below a header like path,label"),
        (["", " "], "TABLE: is empty: a row per photograph is needed, below a header like path,label"),
        (["path,label", "0.jpg,a", "1.jpg,a"], "TABLE: at least two classes are needed, but all 2 photographs are a"),
        (
            ["path,label", "0.JPG,a", "1.jpg,b"],
            (
                "TABLE: 1 row differs from a file's name in upper and lower case alone: line 2 (0.JPG); write "
                "them as the files are called"
            ),
        ),
        (
            ["path,label", r"C:\leaves\0.jpg,a", "1.jpg,b"],
            (
                "TABLE: 1 row names a photograph that is not in 'DIR': line 2 (C:/leaves/0.jpg); write them "
                "without the folders of another machine, as they lie below --data DIR"
            ),
        ),
        (
            ["path,label", "../photos,a", "1.jpg,b"],
            "TABLE: 1 row names a folder: line 2 (../photos); a photograph is needed",
        ),
        (
            ["path,label", "twins,a", "1.jpg,b"],
            (
                "TABLE: 1 row names several photographs: line 2 (twins may be twins.jpg or twins.png); write "
                "the whole name"
            ),
        ),
        (
            ["path,label,split", "0.jpg,a,train", "1.jpg,b,train", "2.jpg,a,"],
            (
                "TABLE: 1 row names no part of the split: line 4; give each one, or leave the column unused "
                '(columns = {split = ""} in [data])'
            ),
        ),
        (
            ["path,label,split", "0.jpg,a,trian", "1.jpg,b,train", "2.jpg,a,later", "3.jpg,b,later"],
            (
                "TABLE: the split must be train, val or test (training, valid, validation and the like are "
                'understood), but got "later" (2 rows), "trian" (1 row)'
            ),
        ),
        (
            ["path,label,fold", "0.jpg,a,1", "1.jpg,b,1.0"],
            "TABLE: all rows are in fold 1, but folds are for training on the others: two are needed",
        ),
        (["path,label", "0.jpg,NaN", "1.jpg,b", "2.jpg,c"], "TABLE: 1 row has no label: line 2 (0.jpg)"),
    ],
)
def test_a_faulty_table_is_answered_with_the_rule_the_value_and_the_remedy(
    photos: Path, lines: list[str], told: str
) -> None:
    for name in ("twins.jpg", "twins.png"):
        (photos / name).write_bytes(b"")
    assert fault(table(photos, *lines)) == told


def test_a_table_of_another_encoding_or_kind_is_refused(photos: Path) -> None:
    config = table(photos, "path,label", "0.jpg,Blatt-ü", encoding="latin-1")
    assert fault(config) == (
        'TABLE: is not UTF-8 (line 2 has the byte 0xfc): save it as UTF-8, which Excel calls "CSV UTF-8"'
    )
    assert fault(table(photos, "PK", name="labels.xlsx")) == "TABLE: spreadsheets are not read: save it as CSV (UTF-8)"
    gone = config.model_copy(update={"labels": str(photos / "gone.csv")})
    assert fault(gone) == "TABLE: there is no such table of labels (.csv, .parquet or .jsonl)"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"x" * 200_000, "TABLE: line 1 has 200000 characters, and is no header like path,label"),
        ("path,label\n0.jpg,a".encode("utf-16-le"), "TABLE: is no text in UTF-8 (line 1 has the byte 0x00): save it "),
        (b"\x1f\x8b\x08\x00", "TABLE: is compressed: unpack it, and give the table that was in it"),
        (b'[{"path": "0.jpg", "label": "a"}]', "TABLE: looks like JSON: write an object per line, and call it .jsonl"),
    ],
)
def test_what_is_no_table_is_told_without_its_content(photos: Path, content: bytes, told: str) -> None:
    config = table(photos, "path,label")
    Path(config.labels).write_bytes(content)
    assert fault(config).startswith(told)


def test_a_header_with_two_separators_is_told(photos: Path) -> None:
    assert fault(table(photos, "path;label,split", "0.jpg,a,train")) == (
        "TABLE: the header has 2 cells, separated by commas, but 1 row has more or fewer (line 2 has 3 cells: "
        '"0.jpg,a,train"); is the header separated by semicolons too ("path;label")?'
    )


def test_a_list_among_the_labels_of_json_lines_is_no_label(photos: Path) -> None:
    lines = ['{"path": "0.jpg", "label": "a"}', '{"path": "1.jpg", "label": ["b"]}', '{"path": "2.jpg", "label": "b"}']
    assert fault(table(photos, *lines, name="labels.jsonl")) == (
        'TABLE: values must be texts or numbers, but label in line 2 is ["b"]'
    )


def test_a_parquet_table_without_rows_is_told(photos: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = photos.parent / "labels.parquet"
    parquet.write_table(pyarrow.table({"path": pyarrow.array([], pyarrow.string()), "label": []}), path)
    config = DataConfig(labels=str(path), dir=str(photos))
    assert fault(config).startswith("TABLE: holds no rows: a row per photograph is needed")


def test_labels_are_read_without_the_spaces_around_them(photos: Path) -> None:
    config = table(photos, "path , label ", *(f"{name} , {'a' if n % 2 else 'b '}" for n, name in enumerate(NAMES)))
    assert list_photographs(config).classes == ("a", "b")


def test_weights_beyond_what_a_loss_can_hold_are_refused(photos: Path) -> None:
    rows = [f"{name},{'ab'[n % 2]},{('1e39', '1e-50', '2')[min(n, 2)]}" for n, name in enumerate(NAMES)]
    assert fault(table(photos, "path,label,weight", *rows)) == (
        "TABLE: 2 rows have weights: 1e+39 in line 2, 1e-50 in line 3; they must lie between 1e-6 and 1e6, or a loss "
        "overflows"
    )


def test_a_column_that_is_given_for_two_things_is_refused(photos: Path) -> None:
    config = table(photos, "path,label", "0.jpg,a").at({"columns": {"label": "path", "group": "path"}})
    assert fault(config) == "TABLE: one column is given for path and label and group: each needs its own"


def test_a_pattern_that_excludes_nothing_is_told_with_the_other_faults(photos: Path) -> None:
    config = table(photos, "path,label", "0.jpg,a", "1.jpg,", "2.jpg,b").model_copy(update={"exclude": ["x*"]})
    assert fault(config) == (
        "TABLE: exclude in [data] names 'x*', which no photograph of 'TABLE' matches (they are called like '0.jpg'; * "
        "stands for any text): mend it, or leave it out\nTABLE: 1 row has no label: line 3 (1.jpg)"
    )


def test_a_split_of_labels_that_are_no_classes_names_some(photos: Path) -> None:
    rows = [f"{name},{n},train" for n, name in enumerate(NAMES)]
    for n in range(60):
        (photos / f"x{n:02}.jpg").write_bytes((photos / "0.jpg").read_bytes())
        rows.append(f"x{n:02}.jpg,x{n:02},val")
    told = fault(table(photos, "path,label,split", *rows))
    assert "'x38', 'x39' and 20 more: each class must be in train and in val" in told


def test_photographs_in_another_folder_than_said_are_pointed_at(photos: Path) -> None:
    config = table(photos, "path,label", "0,a", "1,b").model_copy(update={"dir": str(photos.parent)})
    assert fault(config) == (
        "TABLE: 2 rows name photographs that are not in 'DIR': line 2 (0), line 3 (1); are those in "
        "'DIR/photos' meant (--data "
        "DIR/photos)?"
    )


def test_rows_that_repeat_another_one_count_once(photos: Path) -> None:
    config = table(photos, "path,label", "0.jpg,a", "1.jpg,b", "./0.jpg,a", "0,a")
    listed = list_photographs(config)
    assert [image.path for image, _, _ in listed.images] == ["0.jpg", "1.jpg"]
    assert listed.notes[1:] == ("labels.csv: 2 rows repeat another one, and each photograph counts once",)


def test_what_no_row_names_what_is_excluded_and_what_is_no_photograph_are_left_out(photos: Path) -> None:
    (photos / "raw.cr2").write_bytes(b"raw")
    lines = [f"{number}.jpg,{'ab'[number % 2]}" for number in range(10)]
    config = table(photos, "path,label", *lines, "raw.cr2,a").model_copy(update={"exclude": ["[23].jpg", "0*"]})
    listed = list_photographs(config)
    assert [(it.path, it.kind, it.reason) for it in listed.left_out] == [
        ("0.jpg", "excluded", "exclude = 0*"),
        ("10.jpg", "no row", "no row of the table names it"),
        ("11.jpg", "no row", "no row of the table names it"),
        ("2.jpg", "excluded", "exclude = [23].jpg"),
        ("3.jpg", "excluded", "exclude = [23].jpg"),
        ("raw.cr2", "format", "this format is not read: convert them to JPEG or PNG"),
    ]
    assert len(listed.images) == 7


def test_merge_joins_labels_and_names_those_that_are_none(photos: Path) -> None:
    config = table(photos, "path,label", "0.jpg,a", "1.jpg,b", "2.jpg,c")
    assert list_photographs(config.model_copy(update={"merge": {"a": "c"}})).classes == ("b", "c")
    assert fault(config.model_copy(update={"merge": {"x": "c"}})) == (
        "TABLE: merge in [data] names 'x', which is no label of it; its labels are a, b, c"
    )


def test_groups_folds_and_weights_of_a_table_reach_the_split(photos: Path, tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]},g{n // 4}{n % 2},{n // 4},{0.5 + n}" for n in range(12)]
    config = table(photos, "path,label,group,fold,weight", *rows)
    data = open_data(config.model_copy(update={"folds": 3, "fold": 1}), {16}, tmp_path / "cache", folds=3)
    assert [data.store.paths[index] for index in data.split.val] == ["4.jpg", "5.jpg", "6.jpg", "7.jpg"]
    assert (len(data.split.train), len(data.split.test)) == (8, 0)
    assert data.weights_N is not None
    assert data.weights_N.dtype == torch.float32
    assert dict(zip(data.store.paths, data.weights_N.tolist(), strict=True))["3.jpg"] == 3.5
    assert len(set(data.keys)) == 6
    assert "6 groups of photographs, as the table says: the split keeps each together" in remarks(data)


def test_folds_that_lack_a_class_are_told_before_anything_is_decoded(photos: Path, tmp_path: Path) -> None:
    config = table(photos, "path,label,fold", *(f"{name},{'abc'[n % 3]},{n % 3}" for n, name in enumerate(NAMES)))
    check_photographs(config)
    told = (
        "each fold must hold photographs of each class, but 'a' is in 1 of 3 folds, 'b' is in 1 of 3 folds, 'c' is in "
        '1 of 3 folds: deal them into all, or leave the column unused (columns = {fold = ""} in [data])'
    )
    with pytest.raises(DataError) as caught:
        check_photographs(config, folds=3)
    assert str(caught.value) == f"{config.labels}: {told}"
    with pytest.raises(DataError) as caught:
        open_data(config, [16], tmp_path / "cache", folds=3)
    assert str(caught.value) == f"{config.labels}: {told}"


def test_copies_that_a_table_deals_into_several_folds_are_told(photos: Path, tmp_path: Path) -> None:
    (photos / "11.jpg").write_bytes((photos / "0.jpg").read_bytes())
    sides = ["test" if n in (5, 9) else "train" for n in range(len(NAMES))]
    rows = [f"{name},{'ab'[n // 6]},{sides[n]},{'' if sides[n] == 'test' else n % 3}" for n, name in enumerate(NAMES)]
    config = table(photos, "path,label,split,fold", *rows)
    data = open_data(config, [16], tmp_path / "cache", folds=3).as_said(
        config.model_copy(update={"folds": 3, "fold": 1})
    )
    told = remarks(data, 3)
    assert (
        "the table deals copies of 1 photograph into more than one fold, so the accuracy is too high: 0.jpg and 11.jpg"
        "; give all copies of one photograph the same fold"
    ) in told
    assert "the test photographs are those that labels.csv gives" in told
    assert not [line for line in told if "chosen by content" in line]


def test_groups_of_a_table_give_way_to_another_rule(photos: Path, tmp_path: Path) -> None:
    rows = [f"{n}.jpg,{'ab'[n % 2]},g{n // 4}{n % 2}" for n in range(12)]
    config = table(photos, "path,label,group", *rows).model_copy(update={"group": "none"})
    assert len(set(open_data(config, {16}, tmp_path / "cache").keys)) == 12


def test_another_number_of_folds_than_the_table_has_is_refused(photos: Path) -> None:
    config = table(photos, "path,label,fold", *(f"{n}.jpg,{'ab'[n % 2]},{n // 4}" for n in range(12)))
    check_photographs(config, folds=3)
    with pytest.raises(DataError) as caught:
        check_photographs(config, folds=5)
    assert str(caught.value).removeprefix(config.labels) == (
        " deals the photographs into 3 folds, but `folds = 5`: set folds = 3, or leave its column "
        'unused (columns = {fold = ""} '
        "in [data])"
    )


def test_a_faulty_table_ends_a_command_with_2_and_writes_nothing(
    photos: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = table(photos, "path,label", "0.jpg,", "gone.jpg,b")
    out = home / "out"
    assert main(["search", "--labels", config.labels, "--data", config.dir, "--out", str(out)]) == 2
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in told] == ["error", "error"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--labels", "a.csv", "--train", "b"],
            (
                "error: --labels and --train both say where photographs come from: give one folder or table, or "
                "--train, --val and --test"
            ),
        ),
        (["--val", "b"], "error: --val needs --train beside it: the folders of a split are given together"),
        (
            ["--labels", "a.csv", "--columns", "path"],
            "error: --columns: must be like path=image_id,label=disease, but got 'path'",
        ),
        (
            ["--labels", "a.csv", "--columns", "name=x"],
            (
                "error: command line: data with --columns: `columns` says which column of a table holds path, "
                'label, split, group, fold, weight, but "name" is none of them: write {path = "image_id", label '
                '= "disease"}'
            ),
        ),
    ],
)
def test_flags_that_contradict_each_other_are_refused(
    flags: list[str], told: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *flags]) == 2
    assert capsys.readouterr().err.strip() == told


def hugging_face(root: Path, files: dict[str, str]) -> DataConfig:
    """Returns [data] of a folder of these texts, with a photograph of every name that is "" among them."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text or name, encoding="utf-8")
    return DataConfig(dir=str(root))


SIDES = ("train/0.jpg", "train/1.jpg", "validation/2.jpg", "validation/3.jpg")


@pytest.mark.parametrize(
    "files",
    [
        {
            "train/metadata.csv": "file_name,label,note\n0.jpg,rust,x\n1.jpg,ok,y",
            "validation/metadata.csv": "file_name,label\n2.jpg,rust\n3.jpg,ok",
        },
        {
            "metadata.csv": "file_name,label\n"
            + "\n".join(f"{name},{label}" for name, label in zip(SIDES, ("rust", "ok") * 2, strict=True))
        },
        {
            "train/metadata.jsonl": '{"file_name": "0.jpg", "label": "rust"}\n{"file_name": "1.jpg", "label": "ok"}',
            "validation/metadata.jsonl": (
                '{"file_name": "2.jpg", "label": "rust"}\n{"file_name": "3.jpg", "label": "ok"}'
            ),
        },
    ],
)
def test_a_folder_with_a_metadata_file_is_read_as_hugging_face_does(tmp_path: Path, files: dict[str, str]) -> None:
    config = hugging_face(tmp_path, files | dict.fromkeys(SIDES, ""))
    assert placed(config) == {
        "train/0.jpg": ("rust", "train"),
        "train/1.jpg": ("ok", "train"),
        "validation/2.jpg": ("rust", "val"),
        "validation/3.jpg": ("ok", "val"),
    }
    assert list_photographs(config).notes[0].startswith("labels of 4 photographs from metadata.")


def test_a_metadata_file_without_labels_leaves_them_to_the_folders(tmp_path: Path) -> None:
    files = {"metadata.csv": "file_name,text\nrust/1.jpg,x", "rust/1.jpg": "", "ok/2.jpg": ""}
    assert placed(hugging_face(tmp_path, files)) == {"ok/2.jpg": ("ok", None), "rust/1.jpg": ("rust", None)}
    files |= {"metadata.csv": "file_name,label\nrust/1.jpg,a\nok/2.jpg,b"}
    assert placed(hugging_face(tmp_path, files)) == {"ok/2.jpg": ("b", None), "rust/1.jpg": ("a", None)}
    as_folders = DataConfig(dir=str(tmp_path), class_depth=1)
    assert placed(as_folders) == {"ok/2.jpg": ("ok", None), "rust/1.jpg": ("rust", None)}


def test_faults_of_several_metadata_files_name_the_file(tmp_path: Path) -> None:
    files = {
        "train/metadata.csv": "file_name,label\n0.jpg,rust\n1.jpg,",
        "test/metadata.csv": "file_name,label\ngone.jpg,ok",
    }
    config = hugging_face(tmp_path, files | {"train/0.jpg": "", "train/1.jpg": ""})
    with pytest.raises(DataError) as caught:
        list_photographs(config)
    told = str(caught.value).replace(str(tmp_path), "DIR").splitlines()
    assert told[:2] == [
        "DIR/metadata.csv: 1 row names a photograph that is not in 'DIR': test/metadata.csv line 2 "
        "(test/gone.jpg); say in which "
        "folder the paths begin (--data DIR), or mend them",
        "DIR/metadata.csv: 1 row has no label: train/metadata.csv line 3 (train/1.jpg)",
    ]


def test_a_table_in_a_folder_without_classes_is_offered(photos: Path) -> None:
    (photos / "my labels.csv").write_text("path,label\n")
    with pytest.raises(DataError, match=r"; if a table in it has the labels, give it: --labels '.*my labels\.csv'$"):
        list_photographs(DataConfig(dir=str(photos)))


def given_folders(root: Path, *names: str) -> DataConfig:
    """Returns [data] with train, val and test in a/, b/ and c/d/ of these photographs."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return DataConfig(train=str(root / "a"), val=str(root / "b"), test=str(root / "c" / "d"))


def test_folders_of_any_name_give_a_split(tmp_path: Path) -> None:
    config = given_folders(
        tmp_path, "a/rust/1.jpg", "a/rust/p7/5.jpg", "a/ok/2.jpg", "b/rust/3.jpg", "b/ok/6.jpg", "c/d/ok/4.jpg"
    )
    assert placed(config) == {
        "a/ok/2.jpg": ("ok", "train"),
        "a/rust/1.jpg": ("rust", "train"),
        "a/rust/p7/5.jpg": ("rust", "train"),
        "b/ok/6.jpg": ("ok", "val"),
        "b/rust/3.jpg": ("rust", "val"),
        "c/d/ok/4.jpg": ("ok", "test"),
    }
    assert list_photographs(config).layout.without_side("a/rust/p7/5.jpg") == "rust/p7/5.jpg"
    excluded = list_photographs(config.model_copy(update={"exclude": ["*/p7/*"], "merge": {"ok": "fine"}}))
    assert (excluded.classes, len(excluded.images)) == (("fine", "rust"), 5)
    assert [it.path for it in excluded.left_out] == ["a/rust/p7/5.jpg"]


def test_folders_of_a_split_that_do_not_fit_together_are_told_at_once(tmp_path: Path) -> None:
    config = given_folders(tmp_path, "a/rust/1.jpg", "a/ok/2.jpg", "b/rust/3.jpg", "b/mould/6.jpg", "c/d/ok/4.jpg")
    with pytest.raises(DataError) as caught:
        list_photographs(config)
    assert str(caught.value).splitlines() == [
        "the given split has no train photographs of 'mould': each class must be in train and in val",
        "the given split has no val photographs of 'ok': each class must be in train and in val",
    ]
    inside = config.model_copy(update={"val": str(tmp_path / "a" / "rust"), "test": ""})
    with pytest.raises(
        DataError, match=r"must lie beside each other, but --val \(.*rust\) lies inside --train \(.*a\)$"
    ):
        list_photographs(inside)
    gone = config.model_copy(update={"val": str(tmp_path / "x"), "test": str(tmp_path / "y")})
    with pytest.raises(DataError) as caught:
        list_photographs(gone)
    assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == ["--val", "--test"]


def test_photographs_of_a_folder_are_excluded_by_patterns(tmp_path: Path) -> None:
    for name in ("rust/1.jpg", "rust/IMG_2.jpg", "ok/3.jpg", "old/4.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    config = DataConfig(dir=str(tmp_path), exclude=["old/*", "*/IMG_*"])
    listed = list_photographs(config)
    assert placed(config) == {"ok/3.jpg": ("ok", None), "rust/1.jpg": ("rust", None)}
    assert left_out_lines(listed.left_out) == [
        "left out: 1 photograph (exclude = old/*): old/4.jpg",
        "left out: 1 photograph (exclude = */IMG_*): rust/IMG_2.jpg",
    ]
    with pytest.raises(DataError, match=r"^exclude in \[data\] names 'x\*', which no photograph of '.*' matches"):
        list_photographs(config.model_copy(update={"exclude": ["old/*", "x*"]}))
    with pytest.raises(DataError, match=r"^exclude in \[data\] leaves out all 4 photographs of "):
        list_photographs(config.model_copy(update={"exclude": ["*"]}))


def test_what_a_table_says_otherwise_is_told_by_name(photos: Path, tmp_path: Path) -> None:
    rows = [[f"{n}.jpg", "ab"[n % 2], ("train", "val")[n > 7], f"g{n}", str(n % 2), "1"] for n in range(12)]

    def with_rows() -> DataConfig:
        return table(photos, "path,label,split,group,fold,weight", *map(",".join, rows))

    write_split(tmp_path, open_data(with_rows(), {16}, tmp_path / "cache"))
    before = read_split(tmp_path)
    assert before is not None

    def changed() -> str:
        return what_changed(before, as_now(scan_photographs(with_rows(), None)))

    assert changed() == ""
    rows[0][1], rows[1][2], rows[2][3], rows[3][4], rows[4][5] = "b", "val", "h", "0", "0.7"
    assert changed() == (
        "1 photograph has another label: 0.jpg; 1 photograph is in another part of the split: 1.jpg; 1 "
        "photograph has another "
        "group: 2.jpg; 1 photograph has another fold: 3.jpg; 1 photograph has another weight: 4.jpg"
    )
    del rows[11]
    assert changed().startswith("1 photograph is gone: 11.jpg; 1 photograph has another label: 0.jpg; ")


def with_pictures(file: Path, labels: list[int | None], named: bool) -> None:
    """Writes a Parquet file with a photograph for each label, as `datasets` does."""
    import pyarrow
    from pyarrow import parquet

    pictures = []
    for number in range(len(labels)):
        content = io.BytesIO()
        Image.new("RGB", (20, 20), (10 * number, 7 * len(file.name), 99)).save(content, "JPEG")
        pictures.append({"bytes": content.getvalue(), "path": f"plant{number}_a.jpg" if named else None})
    table = pyarrow.table({"image": pictures, "label": pyarrow.array(labels, pyarrow.int64())})
    features = {"image": {"_type": "Image"}, "label": {"names": ["ok", "rust"], "_type": "ClassLabel"}}
    file.parent.mkdir(parents=True, exist_ok=True)
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    parquet.write_table(table.replace_schema_metadata(metadata), file)


def test_photographs_inside_parquet_files_are_taken_out(home: Path) -> None:
    data = home / "leaves" / "data"
    with_pictures(data / "train-00000-of-00001.parquet", [0, 1, 0], named=True)
    with_pictures(data / "validation-00000-of-00001.parquet", [0, 1], named=False)
    config = DataConfig(dir=str(home / "leaves"))
    assert placed(config) == {
        "train/000001_plant0_a.jpg": ("ok", "train"),
        "train/000002_plant1_a.jpg": ("rust", "train"),
        "train/000003_plant2_a.jpg": ("ok", "train"),
        "val/000004.jpg": ("ok", "val"),
        "val/000005.jpg": ("rust", "val"),
    }
    assert list_photographs(config).notes == ("labels of 5 photographs from leaves (columns path, label, split)",)
    found = open_data(config, {16}, home / "cache" / "tune_cropshield")
    assert (len(found.split.train), len(found.split.val)) == (3, 2)
    assert cache().extracted_bytes > 5 * 500
    assert cache(clear=True).extracted_bytes == 0
    assert len(placed(config)) == 5

    one = DataConfig(labels=str(data / "train-00000-of-00001.parquet"))
    assert set(placed(one).values()) == {("ok", None), ("rust", None)}


def test_faults_of_photographs_inside_parquet_files_name_the_row(home: Path) -> None:
    file = home / "leaves" / "train.parquet"
    with_pictures(file, [0, 1, -1, None], named=False)
    with pytest.raises(DataError) as caught:
        list_photographs(DataConfig(dir=str(file.parent)))
    assert str(caught.value).removeprefix(str(file)) == (
        ": 2 rows have no label: train.parquet row 3 (train/000003.jpg), train.parquet row 4 (train/000004.jpg)"
    )
    with pytest.raises(DataError, match=r"there is no column 'disease' for label; its columns are image, label: say"):
        list_photographs(DataConfig(dir=str(file.parent), columns={"label": "disease"}))


def test_columns_that_parquet_files_with_photographs_do_not_have_are_told(home: Path) -> None:
    file = home / "leaves.parquet"
    with_pictures(file, [0, 1, 0], named=True)
    config = DataConfig(labels=str(file), columns={"group": "plnt", "path": "img"})
    with pytest.raises(
        DataError, match=r": there is no column 'plnt' for group and 'img' for path; its columns are im"
    ):
        list_photographs(config)
    assert len(placed(DataConfig(labels=str(file), dir=str(home)))) == 3  # the folder of an earlier training
    assert len(placed(DataConfig(labels=str(file), columns={"path": "image", "group": ""}))) == 3


def test_long_names_of_photographs_in_parquet_files_are_shortened(home: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    file = home / "leaves.parquet"
    pictures = [{"bytes": b"\xff\xd8", "path": "x" * 300 + ".jpg"}] * 2
    parquet.write_table(pyarrow.table({"image": pictures, "label": ["a", "b"]}), file)
    assert list(placed(DataConfig(labels=str(file)))) == [f"all/00000{n}_{'x' * 56}.jpg" for n in (1, 2)]


def folders_of_classes(root: Path) -> Path:
    """Returns a folder with the classes a and b."""
    for name in ("a", "b"):
        (root / "leaves" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (20, 20), (80 * number, 9, 99)).save(root / "leaves" / name / f"{number}.jpg")
    return root / "leaves"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("metadata.csv", b"\xf6", "is not UTF-8"),
        ("metadata.csv", b"", "is empty"),
        ("x.parquet", b"version https://git-lfs.github.com/spec/v1", "cannot be read as Parquet"),
    ],
)
def test_faulty_files_beside_folders_of_classes_can_be_passed_by(
    home: Path, name: str, content: bytes, told: str
) -> None:
    root = folders_of_classes(home)
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"{told}.*; if folders name the classes, set class_depth = 1 in \[data\]$"):
        list_photographs(DataConfig(dir=str(root)))
    assert list_photographs(DataConfig(dir=str(root), class_depth=1)).classes == ("a", "b")


def test_columns_that_nothing_uses_are_told(home: Path) -> None:
    check_photographs(DataConfig())
    with pytest.raises(DataError, match=r"^columns in \[data\] is only used with a table of labels"):
        check_photographs(DataConfig(columns={"label": "disease"}))
    root = folders_of_classes(home)
    config = DataConfig(train=str(root / "a"), val=str(root / "b"), columns={"group": "plant"})
    with pytest.raises(DataError, match=r"^columns in \[data\] is only used with a table of labels"):
        list_photographs(config)
    (root / "metadata.csv").write_text("file_name,plant\na/0.jpg,1\n")
    with pytest.raises(
        DataError, match=r"metadata.csv: there is no column 'label'; its columns are 'file_name', 'plan"
    ):
        list_photographs(DataConfig(dir=str(root), columns={"group": "plant"}))


def test_a_metadata_file_without_names_of_files_is_told(home: Path) -> None:
    for side, header in (("train", "file_name,label"), ("test", "name,label")):
        (home / "leaves" / side).mkdir(parents=True)
        (home / "leaves" / side / "metadata.csv").write_text(f"{header}\n0.jpg,a\n")
    with pytest.raises(DataError, match=r"test.metadata.csv has no column 'file_name', unlike .*train.metadata.csv: "):
        list_photographs(DataConfig(dir=str(home / "leaves")))


def test_a_folder_with_a_table_in_it_is_none_whose_folders_name_the_classes(home: Path) -> None:
    root = folders_of_classes(home)
    assert folders_name_classes(DataConfig(dir=str(root)))
    with_pictures(root / "data" / "train.parquet", [0, 1], named=True)
    assert not folders_name_classes(DataConfig(dir=str(root)))
    (root / "data" / "train.parquet").unlink()
    (root / "metadata.csv").write_text("file_name,label\na/0.jpg,1\n")
    assert not folders_name_classes(DataConfig(dir=str(root)))
