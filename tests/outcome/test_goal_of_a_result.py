"""What is said of a search that goes by another metric than the accuracy, and what its best/ holds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from invented_search import REFERENCE_SETTING, InventedTrial, invent_search
from test_report import read

from tune_cropshield.api.results import open_search
from tune_cropshield.cli import main
from tune_cropshield.config.goals import GOALS, VAL_ACC, Goal
from tune_cropshield.data.split import VAL
from tune_cropshield.data.split_file import read_split
from tune_cropshield.outcome import words
from tune_cropshield.outcome.conclusion import conclusion, judge
from tune_cropshield.outcome.confirm import Candidate, ConfirmedRun, candidates
from tune_cropshield.outcome.export import write_best
from tune_cropshield.outcome.report import write_report
from tune_cropshield.outcome.summary import summary_facts, summary_lines
from tune_cropshield.search.journal import read_study
from tune_cropshield.training.predictions import PREDICTIONS, Judged, write_judged

OTHER = {**REFERENCE_SETTING, "lr": 3e-3}


@pytest.fixture
def by_loss(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> Path:
    """Trial 1 has the lowest loss, trial 0 the highest accuracy."""
    trials = [
        InventedTrial(REFERENCE_SETTING, [0.5, 0.9], metrics={"val_loss": 0.8}),
        InventedTrial(OTHER, [0.5, 0.8], metrics={"val_loss": 0.6}),
    ]
    invent_search(tmp_path / "out", drawn_leaves, shared_cache, trials, metric="val_loss")
    return tmp_path / "out"


def test_the_summary_says_the_goal_first_and_the_accuracy_beside_it(by_loss: Path) -> None:
    told = summary_lines(read_study(by_loss), by_loss, by_loss)
    assert told[1].startswith("best: trial 1, val_loss 0.6000, val_acc 0.5000 (lr 0.003, ")
    assert "val_loss 0.8000; the winner is 0.2000 better" in told[2]
    facts = summary_facts(read_study(by_loss), by_loss)
    assert facts["metric"] == "val_loss"
    assert (facts["best"]["trial"], facts["best"]["best_val_loss"], facts["best"]["best_val_acc"]) == (1, 0.6, 0.5)


def test_a_tested_network_is_told_by_the_goal_first() -> None:
    record = {"accuracy": 0.9, "macro_f1": 0.75, "loss": 0.3, "cost": 0.25}
    assert words.tested(GOALS["val_macro_f1"], record) == "test_macro_f1 0.7500, "
    assert words.tested(GOALS["val_loss"], record) == "test_loss 0.3000, "
    assert words.tested(Goal("cost", False), record) == "test_cost 0.2500, "
    assert words.tested(VAL_ACC, record) == words.tested(GOALS["val_auc"], record) == ""


def test_best_holds_the_network_with_the_lowest_loss(by_loss: Path) -> None:
    metrics = json.loads((write_best(by_loss) / "metrics.json").read_text())
    assert (metrics["val_loss"], metrics["metric"]) == (0.6, "val_loss")
    best = open_search(by_loss).best
    assert best is not None
    assert (best.number, best.metric, best.value, best.val_acc) == (1, "val_loss", 0.6, 0.5)


def test_the_report_speaks_of_the_goal(by_loss: Path, shared_cache: Path) -> None:
    text = read(write_report(by_loss, shared_cache))
    assert "Trial 1 reached val_loss 0.6000 in epoch 1, with val_acc 0.5000" in text
    assert "a gain of 0.2000" in text and "best val_loss" in text and "best val_acc" not in text
    assert "How exact its val_loss is cannot be told" in text


def test_list_show_and_compare_name_the_goal(
    by_loss: Path, drawn_leaves: Path, shared_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["list", str(by_loss.parent)]) == 0
    assert "val_loss 0.6000" in capsys.readouterr().out
    assert main(["show", str(by_loss)]) == 0
    assert "best: trial 1, val_loss 0.6000, val_acc 0.5000" in capsys.readouterr().out
    assert main(["show", str(by_loss), "1"]) == 0
    assert "best: val_loss 0.6000, val_acc 0.5000 in epoch 1" in capsys.readouterr().out

    trials = [InventedTrial(REFERENCE_SETTING, [0.5, 0.9]), InventedTrial(OTHER, [0.5, 0.8])]
    invent_search(by_loss.parent / "other", drawn_leaves, shared_cache, trials)
    assert main(["compare", str(by_loss), str(by_loss.parent / "other"), "--to", str(by_loss.parent)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"went by +val_loss 0\.6000 +val_acc 0\.9000", told)
    assert re.search(r"^ *val_acc +0\.5000 +0\.9000", told, re.MULTILINE)
    assert "different metrics (val_loss, val_acc), which do not compare" in read(by_loss.parent / "compare.html")


def test_confirm_compares_by_the_goal(by_loss: Path) -> None:
    chosen = candidates(by_loss, read_study(by_loss), 1)
    assert [(one.trial, one.searched, one.goal.name) for one in chosen] == [(0, 0.8, "val_loss"), (1, 0.6, "val_loss")]
    runs = [
        _run(trial, seed, 0.5, loss)
        for trial, losses in ((0, (0.8, 0.9, 0.85)), (1, (0.5, 0.6, 0.56)))
        for seed, loss in enumerate(losses)
    ]
    told = conclusion(judge(chosen, runs, 12))
    assert told.startswith("conclusion: t001 is better than the reference setting (+0.2967 of val_loss, 95 % interval ")
    assert "In the search the difference was +0.2000." in told


def _run(trial: int, seed: int, val_acc: float, loss: float) -> ConfirmedRun:
    return ConfirmedRun(trial, seed, "finished", val_acc, 1, 0.5, loss, 2, "", best_value=loss)


def test_candidates_of_a_search_for_the_accuracy_are_as_they_were(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    trials = [InventedTrial(REFERENCE_SETTING, [0.5, 0.9]), InventedTrial(OTHER, [0.5, 0.8])]
    invent_search(tmp_path / "out", drawn_leaves, shared_cache, trials)
    first: Candidate = candidates(tmp_path / "out", read_study(tmp_path / "out"), 1)[0]
    assert (first.searched, first.goal.name) == (0.9, "val_acc")


def test_of_macro_f1_the_report_says_how_exact_it_is(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> None:
    trials = [InventedTrial(REFERENCE_SETTING, [0.5]), InventedTrial(OTHER, [0.75])]
    out = tmp_path / "out"
    data = invent_search(out, drawn_leaves, shared_cache, trials, metric="val_macro_f1")
    rows = [row for row in read_split(out) or [] if row.side == VAL]
    wrong = dict(zip(data.classes, data.classes[1:] + data.classes[:1], strict=True))
    judged = [
        Judged(row.photograph, row.class_name, wrong[row.class_name] if number % 4 == 0 else row.class_name, 0.9)
        for number, row in enumerate(rows)
    ]
    for number in (0, 1):
        write_judged(out / f"t00{number}" / PREDICTIONS, judged)
    text = read(write_report(out, shared_cache))
    assert "its val_macro_f1 on others of the same kind can be estimated as 0." in text
    assert "bootstrap over the validation photographs" in text
    assert "points gained" in text
