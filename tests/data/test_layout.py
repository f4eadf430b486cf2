"""What the sub-folders of a data folder mean: classes, a given split, or a question that must be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.folder import list_folder
from tune_cropshield.data.layout import side_of
from tune_cropshield.errors import DataError


def leaves(root: Path, *folders: str, each: int = 2) -> Path:
    """Makes folders with so many photographs by name; nothing is in them."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            (root / folder / f"{index}.jpg").write_bytes(folder.encode())
    return root


def refusal(root: Path, class_depth: int | None = None) -> str:
    """Returns the message that a folder is refused with, with the folder's own path as DATA."""
    with pytest.raises(DataError) as caught:
        list_folder(root, class_depth)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(repr(str(root)), "DATA").replace(str(root), "DATA")


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("train", "train"),
        ("Training Set", "train"),
        ("train_images", "train"),
        ("TRAINING", "train"),
        ("val", "val"),
        ("valid", "val"),
        ("Validation-Data", "val"),
        ("testing", "test"),
        ("test set", "test"),
        ("testset", "test"),
        ("trained", None),
        ("valley", None),
        ("healthy", None),
        ("images", None),
        ("data set", None),
        ("fold1", None),
    ],
)
def test_sides_go_by_many_names(name: str, side: str | None) -> None:
    assert side_of(name) == side


def test_a_split_is_used_as_it_is_given(tmp_path: Path) -> None:
    leaves(tmp_path, "Training/healthy", "Training/rust", "valid/healthy", "valid/rust", "Test Set/healthy")
    listed = list_folder(tmp_path)
    assert listed.classes == ("healthy", "rust")
    assert [(image.path, label, side) for image, label, side in listed.images if image.path.endswith("0.jpg")] == [
        ("Test Set/healthy/0.jpg", 0, "test"),
        ("Training/healthy/0.jpg", 0, "train"),
        ("Training/rust/0.jpg", 1, "train"),
        ("valid/healthy/0.jpg", 0, "val"),
        ("valid/rust/0.jpg", 1, "val"),
    ]


def test_a_split_inside_each_class_is_used_too(tmp_path: Path) -> None:
    leaves(tmp_path, "healthy/train", "healthy/val", "rust/train", "rust/val")
    listed = list_folder(tmp_path)
    assert listed.classes == ("healthy", "rust")
    assert {(image.path, label, side) for image, label, side in listed.images} == {
        (f"{name}/{side}/{index}.jpg", label, side)
        for label, name in enumerate(("healthy", "rust"))
        for side in ("train", "val")
        for index in range(2)
    }


def test_photographs_of_a_test_folder_without_classes_are_left_out_and_told(tmp_path: Path) -> None:
    listed = list_folder(leaves(tmp_path, "train/a", "train/b", "val/a", "val/b", "test"))
    assert {side for _, _, side in listed.images} == {"train", "val"}
    assert [(it.path, it.kind) for it in listed.left_out] == [
        ("test/0.jpg", "no class"),
        ("test/1.jpg", "no class"),
    ]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            ["train/a", "train/b", "val/a"],
            "the given split has no val photographs of 'b': each class must be in train and in val",
        ),
        (
            ["train/a", "train/b", "test/a", "test/c"],
            "the given split has no train photographs of 'c': each class must be in train and in val",
        ),
        (
            ["val/a", "val/b", "test/a", "test/b"],
            "DATA holds test and val, but nothing to train on; give --data DATA/test (2 folders, 4 photographs) or "
            "--data DATA/val (2 folders, 4 photographs)",
        ),
        (
            ["train/a", "train/b", "val/a", "val/b", "validation/a"],
            "DATA holds val and validation, which mean the same part of a split; keep one of them",
        ),
        (
            ["train", "val"],
            "at least two classes are needed, but 'DATA/train' has 0; 2 photographs lie directly in it; a given split "
            "is laid out as in DATA/train/healthy/1.jpg and DATA/val/healthy/2.jpg",
        ),
    ],
)
def test_a_split_that_is_not_whole_is_refused(tmp_path: Path, folders: list[str], message: str) -> None:
    assert refusal(leaves(tmp_path, *folders)) == message


@pytest.mark.parametrize(
    "tops", [("color", "grayscale", "segmented"), ("train", "val", "background"), ("fold1", "fold2"), ("A", "B")]
)
def test_folders_of_the_same_names_are_variants_and_no_classes(tmp_path: Path, tops: tuple[str, ...]) -> None:
    message = refusal(leaves(tmp_path, *(f"{top}/{name}" for top in tops for name in ("healthy", "rust"))))
    assert "hold folders of the same names (healthy and rust), so they are variants or parts of one data set" in message
    for top in tops:
        assert f"--data DATA/{top} (2 folders, 4 photographs)" in message
    assert "are the classes, set class_depth = 1 in [data]" in message


@pytest.mark.parametrize("tops", [("fold1", "fold2"), ("images", "masks", "labels"), ("color", "gray")])
def test_folds_and_variants_are_known_by_name_where_the_classes_are_numbers(
    tmp_path: Path, tops: tuple[str, ...]
) -> None:
    if "images" in tops:
        tops = ("raw", "masks")
    root = leaves(tmp_path, *(f"{top}/{name}" for top in tops for name in ("0", "1")))
    assert "so they are variants or parts of one data set and not classes" in refusal(root)


def test_crops_with_diseases_are_asked_about(tmp_path: Path) -> None:
    root = leaves(tmp_path, "apple/healthy", "apple/scab", "corn/healthy", "corn/common_rust")
    assert refusal(root) == (
        "apple and corn in DATA hold folders with photographs of their own: give --data DATA/apple (2 folders, 4 "
        "photographs) or --data DATA/corn (2 folders, 4 photographs); for all of them with the classes apple/healthy, "
        "apple/scab, corn/common_rust and corn/healthy, set class_depth = 2 in [data]; if apple and corn are the "
        "classes, set class_depth = 1 in [data]"
    )
    assert list_folder(root, 1).classes == ("apple", "corn")
    assert list_folder(root, 2).classes == ("apple/healthy", "apple/scab", "corn/common_rust", "corn/healthy")


@pytest.mark.parametrize(
    "folders",
    [
        ["healthy/batch1", "healthy/batch2", "rust/batch1", "rust/batch2"],
        ["healthy/2023", "healthy/2024-05-01", "rust/2023", "rust/2024-05-01"],
        ["healthy/100CANON", "healthy/101CANON", "rust/100CANON", "rust/101CANON"],
        ["healthy/batch1", "rust/batch1"],
        ["healthy", "rust/field", "rust/greenhouse"],
        ["0", "1", "2"],
    ],
)
def test_folders_inside_a_class_belong_to_it(tmp_path: Path, folders: list[str]) -> None:
    listed = list_folder(leaves(tmp_path, *folders))
    assert listed.classes == tuple(sorted({folder.split("/")[0] for folder in folders}))
    assert len(listed.images) == 2 * len(folders)


def test_a_split_beside_classes_is_refused(tmp_path: Path) -> None:
    root = leaves(tmp_path, "healthy", "rust", "test/healthy", "test/rust")
    assert refusal(root).startswith(
        "'DATA/test' holds folders named like the classes beside it (healthy and rust): move it out of DATA"
    )
    assert refusal(leaves(tmp_path / "loose", "healthy", "rust", "test")).startswith(
        "test in DATA is named like a part of a split, healthy and rust beside it is not"
    )


@pytest.mark.parametrize(
    ("folders", "meant"),
    [
        (["PlantVillage/healthy", "PlantVillage/rust"], "PlantVillage"),
        (["a/b/c/healthy", "a/b/c/rust"], "a/b/c"),
        (["train/healthy", "train/rust"], "train"),
        (["Dataset/train/healthy", "Dataset/val/healthy"], "Dataset"),
    ],
)
def test_a_folder_one_level_too_high_is_refused_with_the_one_that_is_meant(
    tmp_path: Path, folders: list[str], meant: str
) -> None:
    (tmp_path / "__MACOSX").mkdir()
    assert refusal(leaves(tmp_path, *folders)).endswith(f"it has sub-folders itself: was 'DATA/{meant}' meant?")


def test_a_class_of_which_nothing_is_left_by_its_depth_is_told(tmp_path: Path) -> None:
    listed = list_folder(leaves(tmp_path, "apple/scab", "apple/rot", "corn"), 2)
    assert listed.classes == ("apple/rot", "apple/scab")
    assert [it.path for it in listed.left_out if it.kind == "no class"] == ["corn/0.jpg", "corn/1.jpg"]


@pytest.mark.parametrize("for_training", [True, False])
def test_a_class_depth_that_no_photograph_lies_as_deep_as_is_refused_in_words(
    tmp_path: Path, for_training: bool
) -> None:
    root = leaves(tmp_path, "healthy", "rust")
    for merge in ({}, {"healthy": "rust"}):
        with pytest.raises(DataError) as caught:
            list_folder(root, 2, merge, for_training=for_training)
        assert str(caught.value) == (
            f"class_depth = 2 in [data] means DATA/apple/scab/1.jpg, but no photograph of {str(root)!r} lies that "
            "deep (as healthy/0.jpg does not): leave class_depth out, or put each class into a folder of its crop"
        )


def test_crops_with_diseases_inside_a_split_keep_their_side(tmp_path: Path) -> None:
    root = leaves(tmp_path / "crops", "train/corn/rust", "train/fig/rot", "val/corn/rust", "val/fig/rot")
    (root / "val" / "fig" / "blank").mkdir()
    listed = list_folder(root, 2)
    assert listed.classes == ("corn/rust", "fig/rot")
    assert [(image.path, label, side) for image, label, side in listed.images if image.path.endswith("0.jpg")] == [
        ("train/corn/rust/0.jpg", 0, "train"),
        ("train/fig/rot/0.jpg", 1, "train"),
        ("val/corn/rust/0.jpg", 0, "val"),
        ("val/fig/rot/0.jpg", 1, "val"),
    ]
    assert [it.path for it in listed.left_out] == ["val/fig/blank/"]
    too_flat = leaves(tmp_path / "flat", "train/a", "train/b", "val/a", "val/b")
    assert refusal(too_flat, 2).startswith("class_depth = 2 in [data] means DATA/train/apple/scab/1.jpg, but no")


@pytest.mark.parametrize("depth", [True, 1.0, 0, 3])
def test_a_depth_is_1_or_2(depth: object) -> None:
    with pytest.raises(ValueError, match="class_depth"):
        DataConfig.model_validate({"class_depth": depth})


def test_the_folders_of_a_split_are_not_counted_among_those_of_a_class(tmp_path: Path) -> None:
    crops = [f"{side}/{name}" for side in ("train", "val") for name in ("apple/rot", "apple/scab", "fig/rust")]
    inside = [f"{name}/{side}" for side in ("train", "val") for name in ("apple/rot", "apple/scab", "fig/rust")]
    between = [f"{name}/{side}/x" for side in ("train", "val") for name in ("apple", "fig")]
    for number, folders in enumerate((crops, inside)):
        root = leaves(tmp_path / str(number), *folders)
        listed = list_folder(root, 2)
        assert listed.classes == ("apple/rot", "apple/scab", "fig/rust")
        assert sorted(side or "" for _, _, side in listed.images) == ["train"] * 6 + ["val"] * 6
    for number, folders in enumerate((crops, between)):
        listed = list_folder(leaves(tmp_path / f"one {number}", *folders), 1)
        assert listed.classes == ("apple", "fig")
        assert {side for _, _, side in listed.images} == {"train", "val"}


def test_crops_with_diseases_inside_a_split_are_asked_about(tmp_path: Path) -> None:
    root = leaves(tmp_path, "train/apple/scab", "train/apple/rust", "train/fig/rot", "val/apple/scab", "val/fig/rot")
    assert refusal(root) == (
        "apple and fig in the split of DATA hold folders with photographs of their own: for the classes apple/rust, "
        "apple/scab and fig/rot, set class_depth = 2 in [data]; if apple and fig are the classes, set class_depth = "
        "1 in [data]"
    )
    shared = [f"{side}/{crop}/{name}" for side in ("train", "val") for crop in ("a", "b") for name in ("ok", "rust")]
    assert refusal(leaves(tmp_path / "shared", *shared)) == (
        "a and b in the split of DATA hold folders of the same names (ok and rust), so they are variants or parts of "
        "one data set, or crops, and not classes: keep one of them; if they are crops with the classes a/ok, a/rust, "
        "b/ok and b/rust, set class_depth = 2 in [data]; if a and b are the classes, set class_depth = 1 in [data]"
    )
    one = leaves(tmp_path / "one", "train/apple/scab", "train/apple/rust", "val/apple/scab", "val/apple/rust")
    assert refusal(one) == (
        "at least two classes are needed, but 'DATA/train' has 1; for the classes apple/rust and apple/scab, set "
        "class_depth = 2 in [data]; a given split is laid out as in DATA/train/healthy/1.jpg and "
        "DATA/val/healthy/2.jpg"
    )
    batches = leaves(tmp_path / "batches", "train/a/batch1", "train/a/batch2", "train/b", "val/a", "val/b")
    assert list_folder(batches).classes == ("a", "b")


def test_loose_photographs_beside_diseases_do_not_make_a_crop_a_class(tmp_path: Path) -> None:
    root = leaves(tmp_path, "apple/rust", "apple/scab", "corn/blight", "corn/smut", each=3)
    (root / "apple" / "x.jpg").write_bytes(b"x")
    assert refusal(root) == (
        "apple and corn in DATA hold folders with photographs of their own: give --data DATA/apple (2 folders, 7 "
        "photographs) or --data DATA/corn (2 folders, 6 photographs); for all of them with the classes apple/rust, "
        "apple/scab, corn/blight and corn/smut, set class_depth = 2 in [data] (it leaves out 1 photograph directly "
        "in apple); if apple and corn are the classes, set class_depth = 1 in [data]"
    )
    assert [it.path for it in list_folder(root, 2).left_out] == ["apple/x.jpg"]
    assert len(list_folder(root, 1).images) == 13


def test_a_crop_of_one_disease_beside_one_of_several_is_asked_about(tmp_path: Path) -> None:
    assert "for all of them with the classes apple/rot, apple/scab and corn/rust, set" in refusal(
        leaves(tmp_path, "apple/scab", "apple/rot", "corn/rust")
    )


def test_photographs_on_no_side_of_a_split_inside_the_classes_are_refused(tmp_path: Path) -> None:
    root = leaves(tmp_path, "healthy/train", "healthy/val", "rust/train", "rust/val", "rust")
    for class_depth in (None, 1):
        assert refusal(root, class_depth) == (
            "train and val in 'DATA/healthy' are parts of a split, but 2 photographs of DATA lie in none, as "
            "rust/0.jpg: move them to one, or out of the folder"
        )


def test_crops_that_share_their_diseases_are_offered_as_classes(tmp_path: Path) -> None:
    root = leaves(tmp_path, "apple/healthy", "apple/rust", "corn/healthy", "corn/rust")
    assert refusal(root) == (
        "apple and corn in DATA hold folders of the same names (healthy and rust), so they are variants or parts of "
        "one data set, or crops, and not classes: give --data DATA/apple (2 folders, 4 photographs) or --data "
        "DATA/corn (2 folders, 4 photographs); if they are crops with the classes apple/healthy, apple/rust, "
        "corn/healthy and corn/rust, set class_depth = 2 in [data]; if apple and corn are the classes, set "
        "class_depth = 1 in [data]"
    )
    assert list_folder(root, 2).classes == ("apple/healthy", "apple/rust", "corn/healthy", "corn/rust")
    variants = leaves(tmp_path / "variants", "color/healthy", "color/rust", "gray/healthy", "gray/rust")
    assert "class_depth = 2" not in refusal(variants)


def test_empty_class_folders_of_a_split_and_of_crops_are_named(tmp_path: Path) -> None:
    split = leaves(tmp_path / "split", "train/a", "train/b", "val/a", "val/b")
    crops = leaves(tmp_path / "crops", "apple/scab", "corn/rust")
    (split / "train" / "blank").mkdir()
    (split / "train" / "a" / "day1").mkdir()  # part of a class
    (crops / "apple" / "blank").mkdir()
    (crops / "pear" / "blank").mkdir(parents=True)  # named once, as pear
    assert [(it.path, it.kind) for it in list_folder(split).left_out] == [("train/blank/", "empty")]
    assert [(it.path, it.kind) for it in list_folder(crops, 2).left_out] == [
        ("apple/blank/", "empty"),
        ("pear/", "empty"),
    ]
