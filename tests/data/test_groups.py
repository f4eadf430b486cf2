"""Photographs that belong together lie in one part of the split."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from PIL import ImageOps

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.config.space_file import space_from
from tune_cropshield.data.dataset import LeafData, open_data, split_together
from tune_cropshield.data.decode import decode_rgb
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.groups import Grouping, grouping_of
from tune_cropshield.data.layout import Layout
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.data.remarks import remarks
from tune_cropshield.data.split import fold_of
from tune_cropshield.data.split_file import read_split, rows_of_fold, split_rows, write_split
from tune_cropshield.errors import ConfigError, DataError


def sides_of(data: LeafData) -> dict[str, set[str]]:
    """The parts of the split that photographs of each stem lie in, without what follows the stem."""
    found = defaultdict(set)
    for row in split_rows(data):
        found[row.photograph.split("-")[0]].add(row.side)
    return found


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty photographs of three classes, each with a mirrored and a turned copy whose names say nothing."""
    root = draw_leaves(tmp_path_factory.mktemp("turned") / "leaves", classes=3, per_class=20, image_size=96)
    for number, path in enumerate(photographs_below(root)[0]):
        photograph = decode_rgb(path)
        path.rename(path.with_stem(f"{number:03d}-a"))
        ImageOps.mirror(photograph).save(path.with_stem(f"{number:03d}-b"), quality=60)
        photograph.rotate(90).resize((64, 64)).save(path.with_stem(f"{number:03d}-c"), quality=90)
    return root


def test_copies_are_found_and_kept_together(turned: Path, shared_cache: Path) -> None:
    data = open_data(DataConfig(dir=str(turned)), {32}, shared_cache)

    sides = sides_of(data)
    assert len(sides) == 60
    assert all(len(parts) == 1 for parts in sides.values())
    assert Counter(part for parts in sides.values() for part in parts) == {"train": 48, "val": 6, "test": 6}
    *_, line = remarks(data)
    assert line.startswith(
        "180 photographs are 60 and their copies (turned, mirrored, rescaled, compressed, or copies by their names). "
        "The split keeps them together: "
    )
    assert line.endswith('(not with group = "none" under [data])')


def test_what_looks_alike_is_kept_beside_the_store_and_found_anew_where_that_is_damaged(
    turned: Path, tmp_path: Path
) -> None:
    store = open_data(DataConfig(dir=str(turned)), {32}, tmp_path).store
    kept = store.path / "copies.json"
    groups = json.loads(kept.read_text())["groups"]
    assert len(groups) == 60

    kept.write_text(json.dumps({"alike": 0.98, "groups": [[0, 1]]}))
    assert store.groups_by_look() == [[0, 1]]
    for damaged in ("", "[]", '{"alike": 0.98, "groups": [[0, 180]]}', '{"alike": 0.5, "groups": [[0, 1]]}'):
        kept.write_text(damaged)
        assert store.groups_by_look() == groups
        assert json.loads(kept.read_text())["groups"] == groups


def test_without_groups_they_are_parted_and_a_remark_says_so(turned: Path, shared_cache: Path) -> None:
    data = open_data(DataConfig(dir=str(turned), group="none"), {32}, shared_cache)

    assert sum(len(parts) > 1 for parts in sides_of(data).values()) > 20
    *_, line = remarks(data)
    assert "have a copy in another part of the split" in line


def test_photographs_that_are_no_copies_stay_where_they_were(drawn_leaves: Path, shared_cache: Path) -> None:
    with_groups = open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache)
    without = open_data(DataConfig(dir=str(drawn_leaves), group="none"), {32}, shared_cache)

    assert split_rows(with_groups) == split_rows(without)
    assert {row.group for row in split_rows(with_groups)} == {""}


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_folds_keep_them_together_and_split_csv_tells_it(
    turned: Path, shared_cache: Path, tmp_path: Path, fold: int
) -> None:
    config = DataConfig(dir=str(turned), folds=3, fold=fold)
    whole = open_data(DataConfig(dir=str(turned)), {32}, shared_cache)
    write_split(tmp_path, whole)

    data = open_data(config, {32}, shared_cache)

    assert all(len(parts) == 1 for parts in sides_of(data).values())
    assert split_rows(whole.as_said(config)) == split_rows(data) == rows_of_fold(read_split(tmp_path) or [], config)


def plants(root: Path) -> Path:
    """Six photographs of each of eight plants in two classes, all different: class/plant3/plant3_1.jpg."""
    source = draw_leaves(root / "drawn", classes=2, per_class=48, image_size=32)
    for name in sorted(path.name for path in source.iterdir()):
        for number, photograph in enumerate(sorted((source / name).iterdir())):
            plant = root / "plants" / name / f"plant{number // 6}"
            plant.mkdir(parents=True, exist_ok=True)
            photograph.rename(plant / f"plant{number // 6}_{number % 6}.jpg")
    return root / "plants"


@pytest.mark.parametrize("group", ["folder", r"^(.*)_\d\.jpg"])
def test_folders_and_paths_name_groups(tmp_path: Path, shared_cache: Path, group: str) -> None:
    root = plants(tmp_path)

    data = open_data(DataConfig(dir=str(root), group=group), {32}, shared_cache)

    parts = defaultdict(set)
    for row in split_rows(data):
        parts[row.photograph.rsplit("/", 1)[0]].add(row.side)
    assert all(len(sides) == 1 for sides in parts.values())
    assert Counter(side for sides in parts.values() for side in sides) == {"train": 12, "val": 2, "test": 2}
    assert "16 groups of photographs, as their folders or paths say: the split keeps each together" in remarks(data)


def test_a_pattern_that_leaves_the_class_out_joins_plants_of_both_classes(tmp_path: Path, shared_cache: Path) -> None:
    data = open_data(DataConfig(dir=str(plants(tmp_path)), group=r"(plant\d)_"), {32}, shared_cache)

    parts = defaultdict(set)
    for row in split_rows(data):
        parts[row.photograph.split("/")[1]].add(row.side)
    assert len(parts) == 8
    assert all(len(sides) == 1 for sides in parts.values())


def test_a_class_that_would_be_one_group_is_split_all_the_same_and_the_remark_says_what_that_does(
    tmp_path: Path, shared_cache: Path
) -> None:
    root = draw_leaves(tmp_path / "leaves", classes=2, per_class=10, image_size=48)
    one, *others = photographs_below(root / "rust")[0]
    for number, other in enumerate(others):
        decode_rgb(one).resize((40 + number, 40 + number)).save(other, quality=90)

    data = open_data(DataConfig(dir=str(root)), {32}, shared_cache)
    *_, line = remarks(data)

    assert "have a copy in another part of the split" in line
    with pytest.raises(DataError, match="too few distinct"):
        open_data(DataConfig(dir=str(root), group=r"^(rust)"), {32}, shared_cache)


def test_a_split_that_was_written_down_is_kept(turned: Path, shared_cache: Path, tmp_path: Path) -> None:
    write_split(tmp_path, open_data(DataConfig(dir=str(turned), group="none"), {32}, shared_cache))
    kept = read_split(tmp_path)

    data = open_data(DataConfig(dir=str(turned)), {32}, shared_cache, kept=kept)

    assert split_rows(data) == kept


@pytest.mark.parametrize(
    ("group", "says"),
    [
        ("plant", "has 0"),
        ("(a)(b)", "has 2"),
        ("(plant", "is none: missing ), unterminated subpattern at position 0"),
        ("", "has 0"),
    ],
)
def test_a_rule_that_names_no_groups_is_refused(group: str, says: str) -> None:
    with pytest.raises(ConfigError) as told:
        space_from({"data": {"group": group}, "space": {"lr": {"log": [1e-4, 1e-2]}}}, {}, "space.toml")
    assert '`group` must be "found", "folder", "none" or a regular expression' in str(told.value)
    assert says in str(told.value)


LABELS = [0] * 12 + [1] * 12
DIGESTS = [f"{number:064x}" for number in range(24)]
PATHS = [f"{'ab'[label]}/{number:02d}.jpg" for number, label in enumerate(LABELS)]


@pytest.mark.parametrize("other", range(1, 12))
def test_a_copy_that_only_a_fold_would_part_is_kept_together_too(other: int) -> None:
    found = grouping_of("found", PATHS, Layout((0,)), DIGESTS, [[0, other]])

    keys, split = split_together(DataConfig(), ["a", "b"], LABELS, DIGESTS, found, [], folds=3)

    for fold in range(3):
        one = fold_of(split, LABELS, keys, ["a", "b"], 0, 3, fold)
        sides = [{0, other} & {*side.tolist()} for side in (one.train, one.val, one.test)]
        assert {0, other} in sides


def test_copies_are_parted_where_a_class_would_have_too_few_photographs_for_the_folds() -> None:
    threes = [[start, start + 1, start + 2] for start in range(0, 24, 3)]
    found = grouping_of("found", PATHS, Layout((0,)), DIGESTS, threes)

    together, _ = split_together(DataConfig(), ["a", "b"], LABELS, DIGESTS, found, [])
    for_folds, _ = split_together(DataConfig(), ["a", "b"], LABELS, DIGESTS, found, [], folds=5)

    assert len(set(together)) == 8  # 4 of each class: 2 to train on, 1 to validate, 1 for the test
    assert for_folds == tuple(DIGESTS)


@pytest.mark.parametrize(
    ("layout", "paths", "groups"),
    [
        (Layout((0,)), ["a/1.jpg", "a/2.jpg", "a/x/3.jpg", "a/x/4.jpg"], 1),
        (Layout((0, 1)), ["a/x/1.jpg", "a/x/2.jpg", "a/x/p/3.jpg", "a/x/p/4.jpg"], 1),  # whatever they are merged into
        (Layout((1,), 0), ["train/a/p/1.jpg", "train/a/p/2.jpg", "val/a/3.jpg", "val/a/4.jpg"], 1),
        (
            Layout((0,)),
            ["a/test/1.jpg", "a/test/2.jpg", "b/3.jpg", "b/4.jpg"],
            1,
        ),  # no given split: a folder like others
    ],
)
def test_a_folder_is_a_group_only_inside_the_folders_that_name_a_class(
    layout: Layout, paths: list[str], groups: int
) -> None:
    found = grouping_of("folder", paths, layout, DIGESTS[:4], [])

    assert found.named == groups
    assert len(set(found.keys)) == 3


@pytest.mark.parametrize("pattern", [r"(x*)", r"()", r"(gone)\.jpg", r"(plant\d+)|"])
def test_a_pattern_whose_brackets_hold_nothing_joins_no_photographs(pattern: str) -> None:
    found = grouping_of(pattern, PATHS, Layout((0,)), DIGESTS, [])

    assert found == Grouping(tuple(DIGESTS), (), 0)


def test_a_rule_that_joins_nothing_and_one_that_joins_too_much_are_told(drawn_leaves: Path, shared_cache: Path) -> None:
    data = open_data(DataConfig(dir=str(drawn_leaves), group="folder"), {32}, shared_cache)
    nothing = "group in [data] joins no photographs: no two of them belong together by their folders or paths"
    assert nothing in remarks(data)

    config = DataConfig(group=r"(\d)\.jpg")
    found = grouping_of(config.group, PATHS, Layout((0,)), DIGESTS, [])
    with pytest.raises(DataError) as told:
        split_together(config, ["a", "b"], LABELS, DIGESTS, found, [])
    assert str(told.value).endswith(
        r'. group = "(\\d)\\.jpg" in [data] makes 10 groups of 24 photographs; 10 of them in several classes, which a '
        r"pattern like '^(.*plant\d+)_' keeps apart"
    )


def test_a_given_split_that_parts_groups_and_copies_is_said_to_do_so(tmp_path: Path, shared_cache: Path) -> None:
    source = draw_leaves(tmp_path / "drawn", classes=2, per_class=12, image_size=32)
    for name in sorted(path.name for path in source.iterdir()):
        for number, photograph in enumerate(sorted((source / name).iterdir())):
            side = tmp_path / "given" / ("val" if number % 3 == 2 else "train") / name
            side.mkdir(parents=True, exist_ok=True)
            photograph.rename(side / f"{name}{number // 3}_view{number % 3}.jpg")

    config = DataConfig(dir=str(tmp_path / "given"), group=r"([a-z]+\d)_")
    told = remarks(open_data(config, {32}, shared_cache))

    assert (
        "8 groups of photographs, as their folders or paths say: the given split parts the photographs of 8, so the "
        "accuracy is too high"
    ) in told
    assert any(line.startswith("8 of 8 validation photographs have a copy in another part") for line in told)
    assert not any("keeps" in line for line in told)


@pytest.mark.slow
def test_a_regular_expression_that_takes_forever_is_refused() -> None:
    paths = [f"rust/{'a' * 60}.jpg"]
    with pytest.raises(DataError) as refused:
        grouping_of("(a+)+_", paths, Layout((0,)), ["0"], [])

    assert str(refused.value) == (
        'group = "(a+)+_" in [data]: this regular expression was not done with the paths of 1 photograph in 10 s: '
        "write it without a repeat inside a repeat, such as (a+)+"
    )


def test_a_name_that_is_no_utf_8_is_matched_too() -> None:
    paths = ["rust/plant\udce9_1.jpg", "rust/plant\udce9_2.jpg", "rust/plantb_1.jpg", "rust/else.jpg"]

    assert grouping_of(r"(plant.)_", paths, Layout((0,)), ["0", "1", "2", "3"], []).keys == ("0", "0", "2", "3")
