"""Class names that are probably one class, and the table that joins them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_cropshield.config.settings import DataConfig, load_config, save_config
from tune_cropshield.data.dataset import open_data
from tune_cropshield.data.folder import list_folder, scan_folder
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.look_alikes import LookAlikes, look_alike_lines, look_alikes
from tune_cropshield.data.remarks import remarks
from tune_cropshield.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("one", "other", "differ_in"),
    [
        ("Healthy", "healthy", "upper and lower case"),
        ("rust", "rust ", "spaces at an end"),
        (" rust", "rust", "spaces at an end"),
        ("Ro\u00f1a", "Ron\u0303a", "their Unicode form"),
        ("leaf spot", "leaf_spot", "case, accents, spaces or other separators"),
        ("LeafSpot", "leaf-spot", "case, accents, spaces or other separators"),
        ("leaf  spot", "leaf spot", "case, accents, spaces or other separators"),
        ("Ro\u00f1a", "Rona", "case, accents, spaces or other separators"),
        ("Powdary_Mildew", "Powdery_Mildew", "one letter"),
        ("leaf_mold", "leaf_mould", "one letter"),
        ("leaf_spot", "leaf_spots", "one letter"),
        ("maize_rust", "maiez_rust", "one letter"),
        ("Septoria", "Septorria", "one letter"),
        ("Tomato Bacterial spot", "Tomato Bactreiall spot", "two letters"),
        ("anthracnose", "antracnosis", None),
        ("Apple_scab", "Apple_rot", None),
        ("black_rot", "black_rust", None),
        ("scab", "scald", None),
        ("healthy", "unhealthy", None),
        ("mature", "immature", None),
        ("Tomato_healthy", "Potato_healthy", None),
        ("Early_blight", "Late_blight", None),
        ("Apple___Black_rot", "Grape___Black_rot", None),
        ("stage_1", "stage_2", None),
        ("stage1", "stage2", None),
        ("virus_A", "virus_B", None),
        ("1.5", "15", None),
        ("0", "1", None),
        ("rust", "dust", None),
    ],
)
def test_names_that_look_alike_are_found_and_others_are_not(one: str, other: str, differ_in: str | None) -> None:
    found = look_alikes({one: 3, other: 50})
    assert found == ([] if differ_in is None else [LookAlikes(one, other, differ_in)])


def test_the_line_that_joins_two_classes_is_given_and_can_be_pasted(tmp_path: Path) -> None:
    (line,) = look_alike_lines({"Ro\u00f1a": 5, "Ron\u0303a": 40})
    assert line.endswith('join them in [data] with  merge = {"Ro\\u00f1a" = "Ron\\u0303a"}')
    (tmp_path / "config.toml").write_text(f"[data]\n{line.split('with  ')[1]}\n")
    config = load_config(tmp_path / "config.toml")
    assert config.data.merge == {"Ro\u00f1a": "Ron\u0303a"}
    save_config(config, tmp_path / "again.toml")
    assert load_config(tmp_path / "again.toml") == config


def test_one_line_joins_all_that_are_alike_under_a_name_without_spaces_at_its_ends() -> None:
    assert look_alike_lines({"Rust": 3, "rust": 9, "rust ": 12, "leaf_mold": 5, "leaf_mould": 4})[-1].endswith(
        ': if they are one, join them in [data] with  merge = {"Rust" = "rust", "leaf_mould" = "leaf_mold", '
        '"rust " = "rust"}'
    )


def test_a_split_whose_sides_spell_a_class_in_two_ways_is_refused_with_the_line_that_joins_them(
    tmp_path: Path,
) -> None:
    for folder in ("train/Rust", "train/healthy", "val/rust", "val/healthy"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "1.jpg").write_bytes(folder.encode())
    (tmp_path / "train" / "Rust" / "2.jpg").write_bytes(b"2")
    with pytest.raises(DataError) as caught:
        list_folder(tmp_path)
    assert str(caught.value) == (
        "the given split has no train photographs of 'rust': each class must be in train and in val (are 'rust' and "
        '\'Rust\' one class? join them in [data] with  merge = {"rust" = "Rust"})'
    )
    assert list_folder(tmp_path, merge={"rust": "Rust"}).classes == ("Rust", "healthy")


def test_a_merge_of_all_classes_into_one_is_named(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.jpg").write_bytes(folder.encode())
    with pytest.raises(DataError, match=r"merge in \[data\] joins all 3 of .*\('a', 'b', 'c'\) into 'c': take one"):
        list_folder(tmp_path, merge={"a": "c", "b": "c"})


@pytest.fixture
def misspelt(tmp_path: Path) -> Path:
    """Drawn leaves in the classes Powdary_Mildew (6), Powdery_Mildew (8) and the 8 of a third one."""
    root = draw_leaves(tmp_path / "leaves", classes=3, per_class=8, image_size=24)
    first, second, _ = sorted(root.iterdir())
    first.rename(root / "Powdary_Mildew")
    second.rename(root / "Powdery_Mildew")
    for file in sorted((root / "Powdary_Mildew").iterdir())[:2]:
        file.unlink()
    return root


def test_look_alikes_are_told_before_training_and_joined_by_merge(misspelt: Path, shared_cache: Path) -> None:
    other = next(path.name for path in misspelt.iterdir() if not path.name.startswith("Powd"))
    data = open_data(DataConfig(dir=str(misspelt)), {16}, shared_cache)
    assert remarks(data)[:-1] == [
        "classes 'Powdary_Mildew' (6) and 'Powdery_Mildew' (8) differ only in one letter: if they are one, join them "
        'in [data] with  merge = {"Powdary_Mildew" = "Powdery_Mildew"}'
    ]
    merge = {"Powdary_Mildew": "Powdery_Mildew"}
    joined = open_data(DataConfig(dir=str(misspelt), merge=merge), {16}, shared_cache)
    assert joined.classes == tuple(sorted(("Powdery_Mildew", other)))
    mildew = joined.classes.index("Powdery_Mildew")
    assert int((joined.store.labels == mildew).sum()) == 14
    assert joined.store.fingerprint != data.store.fingerprint
    assert not any("differ only" in line for line in remarks(joined))


def test_classes_can_be_joined_under_a_new_name(misspelt: Path) -> None:
    merge = {"Powdary_Mildew": "mildew", "Powdery_Mildew": "mildew"}
    assert "mildew" in list_folder(misspelt, merge=merge).classes
    assert len(list_folder(misspelt, merge=merge).classes) == 2


def test_a_merge_of_names_that_are_no_classes_is_a_fault_except_on_another_folder(misspelt: Path) -> None:
    merge = {"Powdary": "Powdery_Mildew"}
    with pytest.raises(DataError, match=r"merge in \[data\] names 'Powdary', which is not a class of .*'Powdary_Mild"):
        list_folder(misspelt, merge=merge)
    assert len(scan_folder(misspelt, None, merge=merge, for_training=False).classes) == 3


def test_a_chain_of_merges_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[data]\nmerge = {a = "b", b = "c"}\n')
    with pytest.raises(
        ConfigError, match=r'data: `merge` turns one class into another that stays, but "b" stands on both sides'
    ):
        load_config(tmp_path / "config.toml")
