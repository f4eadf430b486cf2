"""`evaluate` on its own photographs and on others: how many of how many, by class name, and what was seen before."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

import tune_cropshield as tc
from tune_cropshield.cli import main
from tune_cropshield.errors import UserError

CLASSES = ["blight", "healthy", "leaf_spot", "rust"]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(trained: tc.TrainResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the run, so that the files of these evaluations are in nobody's way."""
    return shutil.copytree(trained.folder, tmp_path_factory.mktemp("evaluated") / "run")


def other_photographs(leaves: Path, folder: Path, classes: Sequence[str], per_class: int = 20) -> Path:
    """Draws photographs that no network was trained on: mirrored and turned ones."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        photographs = sorted((leaves / name).iterdir())
        for number in range(per_class):
            turned = Image.open(photographs[number]).transpose(Image.Transpose.TRANSVERSE).rotate(number + 1)
            turned.save(folder / name / f"e{number}.png")
    return folder


def test_a_folder_that_was_not_trained_on_is_judged_whole(run: Path, drawn_leaves: Path, home: Path) -> None:
    other = other_photographs(drawn_leaves, home / "external", CLASSES)

    found = tc.evaluate(run, data=other, to=home / "to")

    assert (found.split, found.own, found.photographs, found.expected) == ("all", False, 80, 80)
    assert found.remarks == []
    assert [row["photographs"] for row in found.class_rows()] == [20, 20, 20, 20]
    assert tc.evaluate(run, data=other, split="all", to=home / "to").accuracy == found.accuracy
    predicted = {row.path: next(iter(row.probabilities)) for row in tc.predict(run, other)}
    assert found.right == sum(path.parent.name == name for path, name in predicted.items())


def test_classes_are_compared_by_name_and_those_it_lacks_are_rows_without_photographs(
    run: Path, drawn_leaves: Path, home: Path
) -> None:
    whole = tc.evaluate(run, data=other_photographs(drawn_leaves, home / "all", CLASSES), to=home / "to")
    found = tc.evaluate(run, data=other_photographs(drawn_leaves, home / "two", ["healthy", "rust"]), to=home / "to")

    rows, of_whole = found.class_rows(), whole.class_rows()
    assert [row["photographs"] for row in rows] == [0, 20, 0, 20]
    assert [rows[place]["recall"] for place in (1, 3)] == [of_whole[place]["recall"] for place in (1, 3)]
    assert [(rows[place]["recall"], rows[place]["F1"]) for place in (0, 2)] == [(None, None), (None, None)]
    assert found.remarks == ["no photographs of blight, leaf_spot"]
    assert found.classes_present == 2
    assert found.macro_f1 == pytest.approx((rows[1]["F1"] + rows[3]["F1"]) / 2)


def test_unknown_classes_are_named_counted_and_left_out(run: Path, drawn_leaves: Path, home: Path) -> None:
    other = other_photographs(drawn_leaves, home / "external", CLASSES)
    (other / "rust").rename(other / "Rust")
    shutil.copytree(other / "blight", other / "mildew")

    found = tc.evaluate(run, data=other, to=home / "to")

    assert (found.photographs, found.expected) == (60, 100)
    assert found.remarks == [
        "left out: 40 photographs of classes that it was not trained on: Rust (20, is 'rust' meant?), mildew (20)",
        "no photographs of rust",
    ]


def test_a_folder_of_one_class_is_judged_too(run: Path, drawn_leaves: Path, home: Path) -> None:
    found = tc.evaluate(run, data=other_photographs(drawn_leaves, home / "one", ["rust"]), to=home / "to")

    assert (found.photographs, found.expected, found.classes_present) == (20, 20, 1)
    assert [row["photographs"] for row in found.class_rows()] == [0, 0, 0, 20]
    assert found.remarks == ["no photographs of blight, healthy, leaf_spot"]


def test_photographs_that_cannot_be_read_are_named_and_the_others_judged(
    run: Path, drawn_leaves: Path, home: Path
) -> None:
    other = other_photographs(drawn_leaves, home / "external", ["healthy", "rust"])
    for name in ("rust", "blight"):
        (other / name).mkdir(exist_ok=True)
        (other / name / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")  # the only one of blight

    found = tc.evaluate(run, data=other, to=home / "to")

    assert (found.photographs, found.expected) == (40, 42)
    assert found.remarks[0].startswith("left out: blight/broken.jpg (")
    assert found.remarks[1].startswith("left out: rust/broken.jpg (")
    assert found.remarks[2] == "no photographs of blight, leaf_spot"


def test_a_folder_of_which_nothing_can_be_read_is_refused(run: Path, home: Path) -> None:
    for name in ("healthy", "rust"):
        (home / "broken" / name).mkdir(parents=True)
        (home / "broken" / name / "broken.jpg").write_bytes(b"\xff\xd8\xff no more")

    with pytest.raises(tc.UserError, match=r"none of the 2 images in .* can be read: healthy/broken.jpg"):
        tc.evaluate(run, data=home / "broken", to=home / "to")


def test_a_folder_of_unknown_classes_alone_is_refused(run: Path, drawn_leaves: Path, home: Path) -> None:
    other = other_photographs(drawn_leaves, home / "external", CLASSES[:2])
    (other / "blight").rename(other / "mites")
    (other / "healthy").rename(other / "mildew")

    with pytest.raises(tc.UserError, match=r"holds none of the network's classes: it knows blight, .*mildew, mites"):
        tc.evaluate(run, data=other, to=home / "to")


def test_its_own_photographs_are_found_by_content_wherever_they_have_moved(
    run: Path, drawn_leaves: Path, home: Path
) -> None:
    as_trained = tc.evaluate(run, to=home / "to")
    moved = shutil.copytree(drawn_leaves, home / "moved")
    for photograph in sorted((moved / "rust").iterdir()):
        photograph.rename(photograph.with_name(f"renamed_{photograph.name}"))

    found = tc.evaluate(run, data=moved, to=home / "to")

    assert (as_trained.split, as_trained.photographs, as_trained.expected) == ("val", 12, 12)
    assert (found.split, found.own, found.photographs, found.expected) == ("val", True, 12, 12)
    assert (found.accuracy, found.loss) == (as_trained.accuracy, pytest.approx(as_trained.loss))


def test_all_of_its_own_photographs_are_said_to_hold_what_it_was_trained_on(run: Path, home: Path) -> None:
    found = tc.evaluate(run, split="all", to=home / "to")

    assert (found.photographs, found.expected) == (120, 120)
    assert found.remarks == [
        "84 of these 120 photographs are training photographs of this network (equal content): the accuracy on new "
        "photographs will be lower",
        "12 of these 120 photographs are those that it was validated and chosen by",
    ]


def test_another_folder_that_shares_photographs_says_how_many(run: Path, drawn_leaves: Path, home: Path) -> None:
    other = other_photographs(drawn_leaves, home / "external", CLASSES)
    trained_on = [row["photograph"] for row in rows_of(run / "split.csv") if row["split"] == "train"]
    for number, photograph in enumerate(trained_on[:7]):
        shutil.copy(drawn_leaves / photograph, other / photograph.split("/")[0] / f"copy{number}.jpg")

    found = tc.evaluate(run, data=other, to=home / "to")

    assert (found.split, found.photographs) == ("all", 87)
    assert found.remarks == [
        "7 of these 87 photographs are training photographs of this network (equal content): the accuracy on new "
        "photographs will be lower"
    ]


def test_only_of_new_photographs_it_is_said_how_sure_the_accuracy_on_others_is(
    run: Path, drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = other_photographs(drawn_leaves, home / "external", CLASSES)
    said = {}
    for name, more in (
        ("val", []),
        ("test", ["--split", "test"]),
        ("all", ["--split", "all"]),
        ("other", ["--data", str(other)]),
    ):
        assert main(["evaluate", str(run), *more, "--to", str(home / name)]) == 0
        said[name] = next(line for line in capsys.readouterr().out.splitlines() if " right" in line)

    lies = re.compile(
        r"\d+ of (24|80) right; on other photographs of the same kind the accuracy is probably .* \(95 % .*\)"
    )
    assert lies.fullmatch(said["test"])
    assert lies.fullmatch(said["other"])
    assert re.fullmatch(r"\d+ of 120 right", said["all"])  # 84 of them are training photographs
    assert re.fullmatch(
        r"\d+ of 12 right; its epoch \(and in a search the trial\) was chosen with these photographs: expect less on "
        r"new ones",
        said["val"],
    )


def test_what_is_written_of_two_other_folders_stands_side_by_side(run: Path, drawn_leaves: Path, home: Path) -> None:
    copy = shutil.copytree(run, home / "run")
    found = [
        tc.evaluate(copy, data=other_photographs(drawn_leaves, home / name, CLASSES, count))
        for name, count in (("field a", 3), ("field b", 5), ("elsewhere/field a", 2))
    ]
    again = tc.evaluate(copy, data=home / "elsewhere" / "field a")

    assert [len(rows_of(each.predictions)) for each in found] == [12, 20, 8]
    assert [each.predictions.name for each in (*found, again)] == [
        "predictions_all_field_a.csv",
        "predictions_all_field_b.csv",
        "predictions_all_field_a-2.csv",
        "predictions_all_field_a-2.csv",
    ]
    assert (copy / "evaluation_all_field_a.json").exists()


def test_a_part_of_its_own_that_is_not_there_is_refused(run: Path, drawn_leaves: Path, home: Path) -> None:
    other = other_photographs(drawn_leaves, home / "external", CLASSES)

    with pytest.raises(
        tc.UserError, match=r"none of the 80 photographs in .* is one of the network's test photographs"
    ):
        tc.evaluate(run, data=other, split="test", to=home / "to")


def test_photographs_that_have_gone_are_missed_in_how_many_of_how_many(
    run: Path, drawn_leaves: Path, home: Path
) -> None:
    less = shutil.copytree(drawn_leaves, home / "less")
    gone = [row["photograph"] for row in rows_of(run / "split.csv") if row["split"] == "val"][:2]
    for photograph in gone:
        (less / photograph).unlink()

    found = tc.evaluate(run, data=less, split="val", to=home / "to")

    assert (found.photographs, found.expected, found.own) == (10, 12, False)
    assert tc.evaluate(run, data=less, to=home / "to").split == "all"


def test_every_photograph_is_listed_with_its_class_and_the_wrong_ones_by_themselves(
    run: Path, drawn_leaves: Path, home: Path
) -> None:
    other = other_photographs(drawn_leaves, home / "external", CLASSES)

    found = tc.evaluate(run, data=other, to=home / "to")

    assert sorted(path.name for path in (home / "to").iterdir()) == [
        "confusion_all_external.csv",
        "confusion_all_external.png",
        "evaluation_all_external.json",
        "predictions_all_external.csv",
        "wrong_all_external.csv",
    ]
    rows, wrong = rows_of(found.predictions), rows_of(found.wrong)
    assert list(rows[0]) == list(wrong[0]) == ["photograph", "true_class", "predicted", "probability"]
    assert sorted(row["photograph"] for row in rows) == sorted(
        f"{name}/e{n}.png" for name in CLASSES for n in range(20)
    )
    assert all(row["photograph"].split("/")[0] == row["true_class"] for row in rows)
    assert {row["photograph"] for row in wrong} == {
        row["photograph"] for row in rows if row["true_class"] != row["predicted"]
    }
    assert len(wrong) == 80 - found.right
    sure = [float(row["probability"]) for row in wrong]
    assert sure == sorted(sure, reverse=True)
    said = {each.path: each.probabilities for each in tc.predict(run, other)}
    for row in rows:
        name, share = next(iter(said[other / row["photograph"]].items()))
        assert (row["predicted"], float(row["probability"])) == (name, pytest.approx(share, abs=1e-5))


def test_a_run_of_an_earlier_version_knows_its_own_folder_while_it_is_there(
    run: Path, drawn_leaves: Path, home: Path
) -> None:
    earlier = shutil.copytree(run, home / "earlier")
    (earlier / "split.csv").unlink()

    assert tc.evaluate(earlier, to=home / "to").photographs == 12
    assert tc.evaluate(earlier, data=shutil.copytree(drawn_leaves, home / "moved"), to=home / "to").split == "val"
    other = tc.evaluate(earlier, data=other_photographs(drawn_leaves, home / "external", CLASSES), to=home / "to")
    assert (other.split, other.photographs, other.remarks) == ("all", 80, [])


def test_a_run_of_an_earlier_version_is_judged_on_crops_that_it_took_for_classes(
    run: Path, drawn_leaves: Path, home: Path
) -> None:
    crops = shutil.copytree(drawn_leaves, home / "crops")
    for crop in (crops / "blight", crops / "rust"):
        for number, photograph in enumerate(sorted(crop.iterdir())):
            (crop / "ab"[number % 2]).mkdir(exist_ok=True)
            photograph.rename(crop / "ab"[number % 2] / photograph.name)
    earlier = shutil.copytree(run, home / "earlier")
    config = (earlier / "config.toml").read_text()
    (earlier / "config.toml").write_text(config.replace(str(drawn_leaves), str(crops)))

    assert tc.evaluate(earlier, to=home / "to").photographs == 12
    with pytest.raises(UserError, match="class_depth = 2"):
        tc.evaluate(run, data=crops, to=home / "to")


def test_a_run_of_an_earlier_version_whose_folder_has_gone_says_what_it_does_not_know(
    run: Path, drawn_leaves: Path, home: Path
) -> None:
    earlier = shutil.copytree(run, home / "earlier")
    (earlier / "split.csv").unlink()
    config = (earlier / "config.toml").read_text()
    (earlier / "config.toml").write_text(config.replace(str(drawn_leaves), str(home / "gone")))

    found = tc.evaluate(earlier, data=drawn_leaves, to=home / "to")

    assert (found.split, found.photographs) == ("all", 120)
    assert found.remarks[0].startswith("what it was trained on was not recorded (by an earlier version)")
    assert (
        tc.evaluate(earlier, data=drawn_leaves, split="val", to=home / "to").accuracy
        == tc.evaluate(run, to=home / "to").accuracy
    )
