"""report.html on how sure a win is, on the photographs, and on what must not be missed."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from invented_search import REFERENCE_SETTING, InventedTrial, invent_search
from test_report import read, settings

from tune_cropshield.api.report import report
from tune_cropshield.cli import main
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.outcome.report import write_report
from tune_cropshield.search.endings import PRUNED
from tune_cropshield.training.predictions import Judged

CLASSES = ("blight", "healthy", "leaf_spot", "rust")


def predicted(right: str) -> list[Judged]:
    """Twelve validation photographs, three of each class: "r" for one that is recognised, "w" for one that is not."""
    return [
        Judged(
            f"{CLASSES[n // 3]}/{n}.jpg", CLASSES[n // 3], CLASSES[n // 3] if mark == "r" else CLASSES[n // 3 - 1], 0.6
        )
        for n, mark in enumerate(right)
    ]


def search_of_two(folder: Path, leaves: Path, cache: Path, **winner: Any) -> None:
    """Trial 0 is right on 6 of 12, trial 1 on 11."""
    invent_search(
        folder,
        leaves,
        cache,
        [
            InventedTrial(settings(), [0.25, 0.5], predictions=predicted("rrrrrrwwwwww")),
            InventedTrial(settings(lr=1e-3), [11 / 12], predictions=predicted("wrrrrrrrrrrr"), **winner),
        ],
    )


def test_winner_and_reference_are_compared_on_the_same_photographs(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    search_of_two(tmp_path / "s", drawn_leaves, shared_cache)

    text = read(write_report(tmp_path / "s", shared_cache))

    assert (
        "Of the same 12 photographs, only the winner gets 6 right, and only the reference setting 1. If both "
        "were equally good, a difference as large as this would occur by chance with p = 0.12 (McNemar's exact "
        "test)."
    ) in text
    assert "The winner is right on 11 of 12 validation photographs; one photograph is 8.3 points." in text
    assert "on others of the same kind can be estimated as 64.6 to 98.5 % (95 % Wilson interval)." in text


def test_an_accuracy_of_1_is_not_certain(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> None:
    trial = InventedTrial(settings(), [1.0], predictions=predicted("r" * 12))
    invent_search(tmp_path / "s", drawn_leaves, shared_cache, [trial])

    text = read(write_report(tmp_path / "s", shared_cache))

    assert "right on 12 of 12 validation photographs" in text
    assert "be estimated as 75.8 to 100 % (95 %" in text  # 12 / (12 + 1.96^2)
    assert "±" not in text
    assert "chosen with these same photographs" not in text  # there was nothing to choose from


def test_of_a_single_trial_the_epoch_was_chosen(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> None:
    invent_search(tmp_path / "s", drawn_leaves, shared_cache, [InventedTrial(settings(), [0.5, 0.75, 0.25])])

    text = read(write_report(tmp_path / "s", shared_cache))

    assert (
        "right on 9 of 12 validation photographs; one photograph is 8.3 points. From this number of photographs, its "
        in text
    )
    assert "Its epoch was chosen with these same photographs, so its accuracy is probably too high." in text


def test_what_confirm_and_the_test_split_say_stands_in_place_of_the_advice(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    search_of_two(tmp_path / "s", drawn_leaves, shared_cache)
    before = read(write_report(tmp_path / "s", shared_cache))
    assert "the command confirm, at the end of this page, trains the winner and the reference setting again" in before
    assert (
        "It was not evaluated yet on the test photographs, which no trial has used: a command at the end of this page "
        "does it, once."
    ) in before

    gain = {"gain": 0.1, "low": -0.02, "high": 0.22}
    runs = [{"outcome": "finished"}] * 3
    reference = {"trial": 0, "mean": 0.5, "spread": 0.01, "against_reference": None, "p_value": None, "runs": runs}
    other = {"trial": 1, "mean": 0.6, "spread": 0.02, "against_reference": gain, "p_value": 0.07, "runs": runs}
    said = "t001's difference from the reference setting could be chance."
    confirmed = {
        "seeds": [1, 2, 3],
        "conclusion": said,
        "test": "a t-test",
        "reference": reference,
        "candidates": [other],
    }
    (tmp_path / "s" / "confirm.json").write_text(json.dumps(confirmed))
    digest = hashlib.sha256((tmp_path / "s" / "t001" / "model.safetensors").read_bytes()).hexdigest()
    tested = {"right": 20, "photographs": 24, "expected": 24, "accuracy": 20 / 24, "weights_sha256": digest}
    (tmp_path / "s" / "t001" / "evaluation_test.json").write_text(json.dumps(tested))
    after = read(write_report(tmp_path / "s", shared_cache))

    assert f"Trained again with 3 seeds (confirm): {said}" in after
    assert "trial 1 3 0.6000 0.02 +10.0 -2.0 to +22.0 0.07" in after
    assert (
        "On the test photographs, which no trial has used, it is right on 20 of 24 photographs: test_acc 0.8333, 95 % "
        "interval 64.1 to 93.3 %, -8.3 points compared with val_acc."
    ) in after
    assert "the command confirm" not in after and "not evaluated yet" not in after

    (tmp_path / "s" / "t001" / "evaluation_test.json").write_text(json.dumps({**tested, "expected": 26}))
    assert "it is right on 20 of 24 photographs (2 of its 26 were missing): test_acc" in read(
        write_report(tmp_path / "s", shared_cache)
    )


def test_test_figures_of_other_weights_are_not_taken(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> None:
    search_of_two(tmp_path / "s", drawn_leaves, shared_cache)
    tested = {"right": 20, "photographs": 24, "accuracy": 20 / 24, "weights_sha256": "0" * 64}
    (tmp_path / "s" / "t001" / "evaluation_test.json").write_text(json.dumps(tested))

    assert "It was not evaluated yet" in read(write_report(tmp_path / "s", shared_cache))


def test_evaluate_on_the_test_split_brings_its_figures_into_the_report(
    tmp_path: Path, drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search_of_two(tmp_path / "s", drawn_leaves, home / "cache")
    report(tmp_path / "s")

    assert main(["evaluate", str(tmp_path / "s" / "t001"), "--split", "test", "--to", str(home / "elsewhere")]) == 0

    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"report: {tmp_path / 's' / 'report.html'}"
    right = re.search(r"(\d+) of 12 right", "\n".join(told))
    assert right is not None
    assert f"On the test photographs, which no trial has used, it is right on {right[1]} of 12 photographs" in read(
        tmp_path / "s" / "report.html"
    )


def test_a_running_searchs_report_says_that_it_runs(tmp_path: Path, drawn_leaves: Path, home: Path) -> None:
    under_way = InventedTrial(settings(lr=2e-3), [0.2], None)
    trials = [InventedTrial(settings(), [0.5]), InventedTrial(settings(lr=1e-3), [0.3], PRUNED), under_way]
    invent_search(tmp_path / "s", drawn_leaves, home / "cache", trials)

    with FileLock(tmp_path / "s" / ".lock"):  # as the search itself holds it
        running = read(report(tmp_path / "s"))
    interrupted = read(report(tmp_path / "s"))

    assert "The search is running: this report shows its state at " in running
    assert "trials: 1 finished, 1 pruned, 1 running" in running
    assert "1 trained to the end, 1 pruned, 1 running, counted as far as they got." in running
    assert "interrupted" not in running and "unfinished" not in running
    assert (
        "The search was interrupted while 1 trial was running: the commands at the end of this page continue it."
        in interrupted
    )
    assert "1 pruned, 1 unfinished" in interrupted and "1 running" not in interrupted


def test_a_finished_search_that_is_being_confirmed_does_not_run(tmp_path: Path, drawn_leaves: Path, home: Path) -> None:
    search_of_two(tmp_path / "s", drawn_leaves, home / "cache")

    with FileLock(tmp_path / "s" / ".lock"):  # confirm holds it too
        text = read(report(tmp_path / "s"))

    assert "The search is running" not in text and "2 trials: 2 trained to the end, 0 pruned." in text


def test_a_failed_trial_is_not_the_best_so_far(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> None:
    failed = [InventedTrial(settings(lr=1e-3 + 1e-4 * n), [0.9], "failed", "the lens is dirty") for n in range(7)]
    invent_search(tmp_path / "s", drawn_leaves, shared_cache, [InventedTrial(settings(), [0.5]), *failed])

    path = write_report(tmp_path / "s", shared_cache)

    (best,) = (
        trace for trace in charts(path.read_text())["Optimisation history"]["data"] if trace["name"] == "best so far"
    )
    assert set(best["y"]) == {0.5}
    assert (
        "Trial 5 did not finish (failed: the lens is dirty). 2 more did not finish either; the table of all trials"
        in read(path)
    )


def test_classes_that_are_never_recognised_or_predicted_are_said_at_the_top(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    rows = [Judged(f"{name}/{n}.jpg", name, "rust", 0.5) for name in CLASSES for n in range(3)]
    rows[0] = Judged("blight/0.jpg", "blight", "blight", 0.5)
    invent_search(tmp_path / "s", drawn_leaves, shared_cache, [InventedTrial(settings(), [4 / 12], predictions=rows)])

    text = read(write_report(tmp_path / "s", shared_cache))

    top = text[: text.index("The winner and the reference setting")]
    assert "The winner recognises no validation photograph (recall 0) of healthy, leaf_spot." in top
    assert "The winner never predicts healthy, leaf_spot for any validation photograph." in top


def test_the_photographs_are_told_class_by_class_with_an_example_of_each(tmp_path: Path, shared_cache: Path) -> None:
    leaves = draw_leaves(tmp_path / "leaves", classes=3, per_class=40, image_size=32)
    few, *_ = sorted(leaves.iterdir())
    for photograph in sorted(few.iterdir())[10:]:
        photograph.unlink()
    (few / "broken.jpg").write_bytes(b"no photograph")
    (few / "clip.mp4").write_bytes(b"film")
    data = invent_search(tmp_path / "s", leaves, shared_cache, [InventedTrial(settings(), [0.5])])

    path = write_report(tmp_path / "s", shared_cache, data)

    text = read(path)
    largest, smallest = sorted(leaves.iterdir())[1].name, few.name
    assert "90 photographs in 3 classes: 72 for training, 9 for validation, 9 for the test." in text
    assert (
        f"The largest class, {largest}, has 40 photographs, 4 times as many as the smallest, {smallest}, with 10. "
        f"A network that always answers {largest} is right on 44 % of the validation photographs (macro F1 0.205)."
    ) in text
    assert "9 validation photographs: one is 11.1 points of val_acc" in text
    assert f"{smallest} 10 11 % 8 1 1 1" in text  # the last: one file that cannot be read
    assert f"Left out: {smallest}/broken.jpg (" in text
    assert "1 .mp4" in text
    assert path.read_text().count('alt="An example of ') == 3


def test_photographs_that_are_gone_leave_what_was_kept(tmp_path: Path, shared_cache: Path) -> None:
    leaves = draw_leaves(tmp_path / "leaves", classes=4, per_class=30, image_size=32)
    search_of_two(tmp_path / "s", leaves, shared_cache)
    shutil.rmtree(leaves)

    text = read(write_report(tmp_path / "s", shared_cache))

    assert "120 photographs in 4 classes: 96 for training, 12 for validation, 12 for the test." in text
    assert f"The pictures cannot be shown: there is no folder '{leaves}'" in text
    assert "Of 12 validation photographs the winner classifies 1 wrongly." in text
    assert "blight taken for rust (1)" in text


def charts(page: str) -> dict[str, dict[str, Any]]:
    """Returns each chart of a page, by its title."""
    found = re.findall(
        r'<h3>([^<]*)</h3>\s*<div class="scroll".*?<script type="application/json">(.*?)</script>', page, re.S
    )
    return {title: json.loads(text) for title, text in found}


def test_epochs_and_trials_are_whole_numbers_on_every_axis(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    search_of_two(tmp_path / "s", drawn_leaves, shared_cache, metrics={"skipped_steps": 1})

    drawn = charts(write_report(tmp_path / "s", shared_cache).read_text())

    counted = {
        "Validation accuracy of both": "xaxis",
        "Optimisation history": "xaxis",
        "Intermediate curves": "xaxis",
        "Seconds per epoch of each trial": "xaxis",
        "Skipped updates by max_norm": "yaxis",
    }
    for title, axis in counted.items():
        assert drawn[title]["layout"][axis]["dtick"] == 1, title
        assert drawn[title]["layout"][axis]["tickformat"] == "d", title


def test_the_confusion_matrix_names_its_classes_also_when_there_are_many(tmp_path: Path, shared_cache: Path) -> None:
    leaves = draw_leaves(tmp_path / "leaves", classes=4, per_class=10, image_size=32)
    first, *_ = sorted(leaves.iterdir())
    for number in range(20):
        shutil.copytree(first, leaves / f"a_class_with_quite_a_long_name_{number:02d}")
        for place, photograph in enumerate(sorted((leaves / f"a_class_with_quite_a_long_name_{number:02d}").iterdir())):
            photograph.write_bytes(photograph.read_bytes() + bytes([number, place]))
    invent_search(tmp_path / "s", leaves, shared_cache, [InventedTrial(dict(REFERENCE_SETTING), [0.5])])

    chart = charts(write_report(tmp_path / "s", shared_cache).read_text())["Confusion matrix"]

    for axis in ("xaxis", "yaxis"):
        assert len(chart["layout"][axis]["ticktext"]) == 24
        assert chart["layout"][axis]["ticktext"][:2] == ["a_class_with_…long_name_00", "a_class_with_…long_name_01"]
        assert set(chart["layout"][axis]["ticktext"]) >= {"rust", "healthy"}
    assert "a_class_with_quite_a_long_name_19" in str(chart["data"][0]["customdata"])
    assert chart["layout"]["height"] > 24 * 24
