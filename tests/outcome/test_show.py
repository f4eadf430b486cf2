"""`show`: a search as it stands, and one of its trials, read from folders as real searches leave them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

import tune_cropshield as tc
from tune_cropshield.cli import main
from tune_cropshield.search.folder import locked
from tune_cropshield.training.run_folder import write_json

BETTER = {**REFERENCE_SETTING, "lr": 1e-3, "max_norm": 0.5}


@pytest.fixture
def search_dir(tmp_path: Path, drawn_leaves: Path, shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """results/runs/leaves: a trial that finished, one that was pruned with the best accuracy, one that diverged, one
    under way.
    """
    monkeypatch.chdir(tmp_path)
    folder = Path("results/runs/leaves")
    trials = [
        InventedTrial(REFERENCE_SETTING, [0.5, 0.25]),
        InventedTrial(BETTER, [0.5, 0.75]),
        InventedTrial(BETTER, [0.125], "diverged", "a gradient stopped being finite in epoch 2"),
        InventedTrial(BETTER, [0.25, 0.375], "pruned"),
        InventedTrial(BETTER, [0.25], None),
    ]
    invent_search(folder, drawn_leaves, shared_cache, trials)
    return folder


def test_a_search_is_shown_with_its_best_trials_first(search_dir: Path) -> None:
    found = tc.show("leaves")

    assert isinstance(found, tc.ShownSearch)
    assert found.overview.folder == search_dir and found.overview.state == "interrupted"
    assert found.photographs == {"photographs": 120, "classes": 4, "train": 96, "val": 12, "test": 12}
    assert (found.starts, list(found.searched)) == (1, ["lr", "max_norm", "weight_decay", "effective_batch"])
    assert found.searched["lr"] == "1e-05 to 0.003, logarithmic"
    assert [row["trial"] for row in found.trials] == [1, 0, 3, 4, 2]
    assert found.summary[0] == ("5 trials: 2 finished, 1 diverged, 1 pruned, 1 unfinished; 8 epochs trained")
    assert not any("leaves/best" in line for line in found.summary)  # best/ was not written yet
    (search_dir / "best").mkdir()
    again = tc.show("leaves")
    assert isinstance(again, tc.ShownSearch) and any("leaves/best" in line for line in again.summary)


@pytest.mark.parametrize(
    ("trial", "number", "ended"),
    [
        (0, 0, "finished after 2 epochs"),
        ("t001", 1, "finished after 2 epochs"),
        ("best", 1, "finished after 2 epochs"),
        ("2", 2, "diverged after 1 epoch: a gradient stopped being finite in epoch 2"),
        (3, 3, "pruned after 2 epochs: it was not among the best at that pruning step"),
        (4, 4, "unfinished after 1 epoch"),
    ],
)
def test_a_trial_is_shown_with_why_it_ended(search_dir: Path, trial: int | str, number: int, ended: str) -> None:
    found = tc.show(search_dir, trial)

    assert isinstance(found, tc.ShownTrial)
    assert (found.number, found.folder, found.ended) == (number, search_dir / f"t{number:03d}", ended)
    assert found.parameters == (BETTER if number else REFERENCE_SETTING)


def test_a_trials_epochs_files_and_command(search_dir: Path) -> None:
    found = tc.show(search_dir, 1)

    assert isinstance(found, tc.ShownTrial) and found.best is not None and found.train_again is not None
    assert [line["val_acc"] for line in found.epochs] == [0.5, 0.75]
    assert found.best["epoch"] == 2
    assert found.files == {
        "settings": search_dir / "t001" / "config.toml",
        "metrics": search_dir / "t001" / "metrics.jsonl",
        "weights": search_dir / "t001" / "model.safetensors",
        "predictions": search_dir / "t001" / "predictions.csv",
    }
    assert found.train_again.endswith("train --config results/runs/leaves/t001/config.toml")


def test_while_the_search_runs_so_does_its_trial(search_dir: Path) -> None:
    with locked(search_dir):
        found = tc.show(search_dir, 4)

        search = tc.show(search_dir)
        rows = tc.open_search(search_dir).trials
        assert main(["report", str(search_dir)]) == 0

    assert isinstance(found, tc.ShownTrial) and found.state == "running"
    assert isinstance(search, tc.ShownSearch)
    assert search.summary[0] == "5 trials: 2 finished, 1 diverged, 1 pruned, 1 running; 8 epochs trained"
    assert [row["outcome"] for row in search.trials] == ["finished", "finished", "pruned", "running", "diverged"]
    assert [row["outcome"] for row in rows] == ["finished", "finished", "diverged", "pruned", "running"]
    assert [row["outcome"] for row in tc.open_search(search_dir).trials][-1] == "unfinished"


def test_show_and_the_report_tell_how_the_head_and_the_rest_are_trained_apart(
    search_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = search_dir / "search.toml"
    settings.write_text(settings.read_text().replace("[trial]\n", "[trial]\nlayer_decay = 0.5\n"))
    apart = "each block learns at 0.5 times the rate of the block after it"
    assert main(["show", "leaves"]) == 0
    assert f"network: tiny_cnn; {apart}" in capsys.readouterr().out.splitlines()
    assert main(["report", str(search_dir)]) == 0
    assert f"In each trial, {apart}." in (search_dir / "report.html").read_text(encoding="utf-8")


def test_a_trials_own_folder_and_a_training_are_shown_too(search_dir: Path, tmp_path: Path) -> None:
    assert tc.show("leaves/t002") == tc.show("leaves", 2)

    shutil.copytree(search_dir / "t001", tmp_path / "training")
    found = tc.show("training")
    assert isinstance(found, tc.ShownTrial)
    assert (found.number, found.state, found.ended) == (None, "interrupted", "interrupted after 2 epochs")
    assert {name: found.parameters[name] for name in ("model", "lr")} == {"model": "tiny_cnn", "lr": 1e-3}
    assert "augment" not in found.parameters  # the default
    with pytest.raises(tc.UserError, match="training is a training and has no trials: leave out 3"):
        tc.show("training", 3)


def test_a_final_training_is_the_best_where_it_is_no_worse(search_dir: Path) -> None:
    with pytest.raises(tc.UserError, match="leaves has no final training"):
        tc.show("leaves", "final")
    shutil.copytree(search_dir / "t001", search_dir / "final")
    write_json(search_dir / "final" / "origin.json", {"trial": 1, "after_trials": 5, "outcome": "finished"})

    found, whole = tc.show("leaves", "best"), tc.show("leaves")

    assert found == tc.show("leaves", "final")
    assert isinstance(found, tc.ShownTrial) and isinstance(whole, tc.ShownSearch)
    assert (found.folder, found.number, found.parameters) == (search_dir / "final", 1, BETTER)
    assert whole.summary[-1] == "the result is the final training: val_acc 0.7500 after 2 epochs"


@pytest.mark.parametrize(
    ("trial", "told"),
    [
        ("5", "there is no trial 5: results/runs/leaves has trials 0 to 4"),
        ("t099", "there is no trial 99: results/runs/leaves has trials 0 to 4"),
        ("first", "TRIAL must be a number, t003, best or final, but got first"),
        ("-1", "TRIAL must be a number, t003, best or final, but got -1"),
    ],
)
def test_a_trial_that_is_not_there_is_told_with_those_that_are(search_dir: Path, trial: str, told: str) -> None:
    with pytest.raises(tc.UserError, match=re.escape(told)):
        tc.show(search_dir, trial)


def test_what_is_damaged_or_no_search_is_told_in_a_line(search_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(tc.UserError, match="empty holds neither a search nor a training"):
        tc.show("empty")
    (search_dir / "t001" / "metrics.jsonl").write_text("{\n{\n")
    with pytest.raises(tc.UserError, match=r"leaves/t001/metrics\.jsonl: line 1 is damaged"):
        tc.show("leaves", 1)
    (search_dir / "study.journal").write_text("nonsense\n")
    with pytest.raises(tc.UserError, match=r"study.journal is damaged"):
        tc.show("leaves")


def test_a_search_with_settings_of_another_version_is_shown_all_the_same(search_dir: Path) -> None:
    with open(search_dir / "search.toml", "a") as file:
        file.write("\n[a_table_of_tomorrow]\nx = 1\n")

    found = tc.show("leaves")

    assert isinstance(found, tc.ShownSearch) and found.trials[0]["trial"] == 1


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    capsys.readouterr()
    assert main(["show", *argv]) == 0
    return capsys.readouterr().out


def test_on_the_screen(search_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole, trial = printed(capsys, "leaves"), printed(capsys, "leaves", "1")

    assert whole.splitlines()[0] == "results/runs/leaves: interrupted"
    assert re.search(r"^ +1 finished +0\.7500 +2 +2 +0\.001 +0\.5 +0\.0001 +32$", whole, re.MULTILINE)
    assert re.search(r"^ +2 best +0\.7500 .* 65,536$", trial, re.MULTILINE)

    for name, value in {"FORCE_COLOR": "1", "NO_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    narrow = re.sub(r"\x1b\[[0-9;]*m", "", printed(capsys, "leaves", "1"))
    table = [line for line in narrow.splitlines() if re.match(r"(epoch| +\d)", line)]
    assert max(map(len, table)) <= 80
    assert re.search(r"^10 columns left out here: a wider terminal shows them$", narrow, re.MULTILINE)
    assert "train --config results/runs/leaves/t001/config.toml\n" in narrow  # in one piece, to be pasted


def test_programs_get_objects(search_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (search_dir / "t002" / "metrics.jsonl").read_text()
    (search_dir / "t002" / "metrics.jsonl").write_text(re.sub('"val_loss": [^,]+', '"val_loss": NaN', line))

    whole, trial = json.loads(printed(capsys, "leaves", "--json")), json.loads(printed(capsys, "leaves", "2", "--json"))

    assert (whole["overview"]["state"], whole["trials"][0]["best_val_acc"]) == ("interrupted", 0.75)
    assert (trial["number"], trial["state"], trial["epochs"][0]["val_loss"]) == (2, "diverged", None)
