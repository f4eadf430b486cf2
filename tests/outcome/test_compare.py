"""`compare`: what differs between searches, what each found, and whether their winners differ on the same photographs.

The folders are as real searches leave them.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

import tune_cropshield as tc
from tune_cropshield.cli import main
from tune_cropshield.data.dataset import LeafData
from tune_cropshield.outcome.side_by_side import differing
from tune_cropshield.training.predictions import Judged, write_judged

BETTER = {**REFERENCE_SETTING, "lr": 1e-3}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, drawn_leaves: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes results/runs/NAME: its winner has `right` of the 12 validation photographs right, the first ones."""
    monkeypatch.chdir(tmp_path)

    def make(name: str, right: int, leaves: Path = drawn_leaves, parameters: dict[str, object] = BETTER) -> Path:
        folder = Path("results/runs") / name
        trials = [
            InventedTrial(REFERENCE_SETTING, [0.125, 0.25]),
            InventedTrial(dict(parameters), [0.125, right / 12, 0.25]),
        ]
        data = invent_search(folder, leaves, shared_cache, trials)
        write_judged(folder / "t001" / "predictions.csv", judged(data, right))
        return folder

    return make


def judged(data: LeafData, right: int) -> list[Judged]:
    names = [data.store.paths[index] for index in data.split.val]
    classes = [data.store.classes[data.store.labels[index]] for index in data.split.val]
    return [
        Judged(name, label, label if place < right else "another", 0.5)
        for place, (name, label) in enumerate(zip(names, classes, strict=True))
    ]


def test_winners_on_the_same_photographs_are_held_against_chance(make: Make, tmp_path: Path) -> None:
    make("a", 11), make("b", 4)

    found = tc.compare("a", "b")

    assert found.verdicts[0] == (
        "a and b, on the same 12 validation photographs: 7 only a gets right, 0 only b; the difference is larger "
        "than chance would give (p = 0.016, McNemar's exact test)"
    )
    assert dict((name, values) for name, *values in found.results) == {
        "state": ["interrupted", "interrupted"],
        "trials that ended": ["2 of 100", "2 of 100"],
        "result": ["trial 1", "trial 1"],
        "val_acc": ["0.9167", "0.3333"],
        "95 % interval": ["64.6 to 98.5 %", "13.8 to 60.9 %"],
        "validated on": ["12", "12"],
        "test_acc": ["–", "–"],
        "epochs trained": ["5", "5"],
        "time": ["0 s", "0 s"],
    }
    assert (found.settings, found.best_settings) == ([], [])
    assert found.same_settings > 40 and found.same_best_settings > 25
    assert found.chart == tmp_path / "results" / "runs" / "compare.html"


def test_the_same_photographs_are_known_by_content_wherever_they_lie(
    make: Make, drawn_leaves: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(drawn_leaves, moved)
    make("a", 6), make("b", 5, moved)

    found = tc.compare("a", "b")

    assert (
        "on the same 12 validation photographs: 1 only a gets right, 0 only b; the difference could be chance"
        in (found.verdicts[0])
    )
    assert found.settings == [("data.dir", str(drawn_leaves), str(moved))]


def test_winners_on_other_photographs_are_not_held_against_each_other(
    make: Make, drawn_leaves: Path, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    shutil.copytree(drawn_leaves, others)
    for path in others.rglob("*.png"):
        path.write_bytes(path.read_bytes() + b"\0")
    for path in others.rglob("*.jpg"):
        path.write_bytes(path.read_bytes() + b"\0")
    make("a", 6), make("b", 5, others)

    assert tc.compare("a", "b").verdicts[0] == (
        "a and b: whether their winners differ cannot be said, as they were validated on different photographs (12 "
        "and 12, 0 of them the same)"
    )


def test_why_it_cannot_be_told_is_said(make: Make) -> None:
    make("a", 6)
    (make("b", 5) / "split.csv").unlink()
    (make("c", 5) / "t001" / "predictions.csv").unlink()
    told = "whether their winners differ cannot be said: of"

    found = tc.compare("a", "b", "c")

    assert found.verdicts[:3] == [
        f"a and b: {told} b, it keeps no split.csv, by which photographs are known",
        f"a and c: {told} c, predictions.csv of its result is not there",
        f"b and c: {told} b, it keeps no split.csv, by which photographs are known",
    ]
    assert [side.interval is not None for side in found.sides] == [True, True, True]


def test_only_what_differs_is_shown(make: Make) -> None:
    make("a", 6)
    settings = make("b", 5, parameters={**BETTER, "lr": 2e-3, "max_norm": 1.0}) / "search.toml"
    text = (
        settings.read_text().replace("trials = 100", "trials = 7").replace('model = "tiny_cnn"', 'model = "resnet18"')
    )
    text = re.sub(r"\[space\.weight_decay\]\nlog = \[[^]]*\]\n", "", text)
    text = text.replace("start = []\n", "")
    settings.write_text(text + "\n[baseline]\nlr = 3e-4\n[[start]]\nlr = 1e-4\n[[start]]\nlr = 1e-3\nmax_norm = 1.0\n")

    found = tc.compare("a", "b")

    assert dict((name, values) for name, *values in found.settings) == {
        "model": ["tiny_cnn", "resnet18"],
        "weight_decay": ["1e-05 to 0.1, logarithmic", "0.0001"],
        "search.trials": ["100", "7"],
        "start": ["–", "lr 0.0001; lr 0.001, max_norm 1"],
        "baseline": ["–", "lr 0.0003"],
    }
    assert found.best_settings == [("lr", "0.001", "0.002"), ("max_norm", "none", "1")]


def test_what_a_column_lacks_is_a_dash() -> None:
    assert differing([{"x": "1", "y": "2"}, {"x": "1", "z": "3"}]) == ([("y", "2", "–"), ("z", "–", "3")], 1)


def test_a_search_without_a_result_stands_beside_one_with(make: Make, drawn_leaves: Path, shared_cache: Path) -> None:
    make("a", 6)
    invent_search(Path("results/runs/b"), drawn_leaves, shared_cache, [InventedTrial(REFERENCE_SETTING, [], None)])
    shutil.copytree("results/runs/b", "results/runs/c")
    Path("results/runs/c/study.journal").unlink()

    found = tc.compare("a", "b", "c")

    assert [side.val_acc for side in found.sides] == [0.5, None, None]
    assert found.verdicts[0].endswith("cannot be said: of b, no trial has a result yet")
    assert found.verdicts[1].endswith("cannot be said: of c, no trial has begun")
    assert found.best_settings == []


def test_the_curve_rises_in_the_order_in_which_epochs_ended(make: Make) -> None:
    folder = make("a", 9)
    for number, ends in ((0, [1.0, 4.0]), (1, [2.0, 3.0, 5.0])):
        lines = [json.dumps({"what": "epoch", "ended": end, "worker": 1}) + "\n" for end in ends]
        (folder / f"t{number:03d}" / "times.jsonl").write_text("".join(lines))
    make("b", 5)

    found = tc.compare("a", "b")

    assert found.sides[0].curve == {1: 0.125, 3: 0.75, 5: 0.75}


def test_the_chart_is_a_page_that_holds_a_line_for_each_search(make: Make, tmp_path: Path) -> None:
    make("a", 9), make("<b>bold", 5)

    found = tc.compare("a", "<b>bold", to=tmp_path / "new" / "folder")

    text = found.chart.read_text(encoding="utf-8")
    assert found.chart == tmp_path / "new" / "folder" / "compare.html"
    assert "&lt;b&gt;bold" in text and "<b>bold" not in text
    assert "Best val_acc so far" in text and "://" not in re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["a"], "two or more searches can be compared, but got 1"),
        (["a", "results/runs/a"], "results/runs/a was given twice: give another search to compare it with"),
        (["a", "bb"], "did you mean b?"),
        (["a", "b/t001"], "results/runs/b/t001 holds no search: compare takes searches only"),
        (["a", "damaged"], "results/runs/damaged is damaged: study.journal is damaged"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(
    given: list[str], told: str, make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("a", 6), make("b", 5)
    (make("damaged", 5) / "study.journal").write_text("nonsense\n")
    capsys.readouterr()

    assert main(["compare", *given]) == 2

    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1
    assert not Path("results/runs/compare.html").exists()


def test_names_that_break_a_line_or_are_markup_stand_at_the_head_of_their_column(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make("line\nbreak", 6), make("[bold]x", 5)
    capsys.readouterr()

    assert main(["compare", "line\nbreak", "[bold]x"]) == 0

    assert re.search(r"^result +line\\nbreak +\[bold\]x *$", capsys.readouterr().out, re.MULTILINE)


def test_on_the_screen_and_for_programs(
    make: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make("a" * 60, 6), make("b", 5, parameters={**BETTER, "lr": 2e-3})
    capsys.readouterr()

    assert main(["compare", "a" * 60, "b", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["best_settings"] == {"lr": {"a" * 60: "0.001", "b": "0.002"}}
    assert [(one["name"], one["val_acc"], one["photographs"]) for one in facts["searches"]] == [
        ("a" * 60, 0.5, 12),
        ("b", 5 / 12, 12),
    ]

    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    assert main(["compare", "a" * 60, "b"]) == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    table = lines[: next(place for place, line in enumerate(lines) if line.endswith(" are equal"))]
    assert max(map(len, table)) <= 80
    assert lines[-1].startswith("chart: ") and lines[-1].endswith("results/runs/compare.html")
