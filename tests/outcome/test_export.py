"""The best trial of a search, written out. The search is a study and files as a real one leaves them; nothing is
trained.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config, save_config
from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.outcome.export import best_run, retrain_scripts, write_best
from tune_cropshield.outcome.trained import earlier_preparation, read_run
from tune_cropshield.search.folder import locked
from tune_cropshield.search.journal import best_trial, open_study, read_study
from tune_cropshield.training.models import build_model

RATES = FloatDistribution(1e-5, 1e-1, log=True)


def add_trial(
    study: optuna.Study, search_dir: Path, lr: float, accuracies: list[float], state: TrialState = TrialState.COMPLETE
) -> None:
    """Adds a trial that reported these best-so-far accuracies, with its folder."""
    value = accuracies[-1] if state == TrialState.COMPLETE else None
    intermediate = {epoch: accuracy for epoch, accuracy in enumerate(accuracies, 1)}
    trial = optuna.trial.create_trial(
        params={"lr": lr}, distributions={"lr": RATES}, value=value, intermediate_values=intermediate, state=state
    )
    study.add_trial(trial)
    folder = search_dir / f"t{len(study.trials) - 1:03d}"
    folder.mkdir()
    trial_config = TrialConfig(
        model="tiny_cnn", image_size=32, effective_batch=32, micro_batch=16, accumulation=2, lr=lr
    )
    save_config(RunConfig(data=DataConfig(dir="/photographs"), trial=trial_config), folder / "config.toml")
    save_file(build_model("tiny_cnn", 2).state_dict(), folder / "model.safetensors")
    (folder / "classes.json").write_text('["blight", "rust"]')
    (folder / "metrics.json").write_text(json.dumps({"epoch": len(accuracies), "val_acc": accuracies[-1]}))


@pytest.fixture
def search_dir(tmp_path: Path) -> Path:
    """A search of three trials: the reference setting, a pruned one that was the best, one as good as it later on."""
    folder = tmp_path / "search"
    folder.mkdir()
    study = open_study(folder)
    add_trial(study, folder, 1e-4, [0.2, 0.3])
    add_trial(study, folder, 1e-3, [0.5, 0.7], TrialState.PRUNED)
    add_trial(study, folder, 1e-2, [0.4, 0.7])
    return folder


def test_the_best_is_the_first_with_the_highest_accuracy_also_when_it_was_pruned(search_dir: Path) -> None:
    assert best_trial(read_study(search_dir)).number == 1


def test_what_evaluate_wrote_stays_with_the_weights_that_it_is_of(search_dir: Path) -> None:
    digest = hashlib.sha256((search_dir / "t001" / "model.safetensors").read_bytes()).hexdigest()
    (search_dir / "t001" / "model.sha256").write_text(f"{digest}  model.safetensors\n")
    best = write_best(search_dir)
    (best / "evaluation_test.json").write_text(json.dumps({"right": 3, "weights_sha256": digest}))
    (best / "wrong_test.csv").write_text("photograph,true_class,predicted,probability\n")
    (best / "evaluation_all_field.json").write_text(json.dumps({"right": 3, "weights_sha256": digest}))
    (best / "confusion_all_field.png").write_bytes(b"")
    (best / "evaluation_val.json").write_text(json.dumps({"right": 3, "weights_sha256": "of others"}))
    (best / "wrong_val.csv").write_text("photograph,true_class,predicted,probability\n")

    write_best(search_dir)  # as a search does that has gone on

    names = {path.name for path in best.iterdir()}
    assert {"evaluation_test.json", "wrong_test.csv", "evaluation_all_field.json", "confusion_all_field.png"} < names
    assert not {"evaluation_val.json", "wrong_val.csv"} & names


def test_best_holds_what_trains_it_again(search_dir: Path) -> None:
    best = write_best(search_dir)

    assert sorted(path.name for path in best.iterdir()) == [
        "classes.json",
        "config.json",
        "config.toml",
        "metrics.json",
        "model.safetensors",
        "origin.json",
        "retrain.ps1",
        "retrain.sh",
    ]
    config, classes, weights = read_run(best)
    assert config == load_config(search_dir / "t001" / "config.toml")
    assert classes == ["blight", "rust"]
    assert load_file(weights).keys() == build_model("tiny_cnn", 2).state_dict().keys()
    assert json.loads((best / "config.json").read_text())["trial"]["lr"] == 1e-3
    assert 'set -- train --config="$here/config.toml"' in (best / "retrain.sh").read_text()
    assert not list(search_dir.glob(".best*"))


def test_retrain_uses_the_python_that_searched_or_whatever_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best = tmp_path / "my search" / "best"
    best.mkdir(parents=True)

    def said(python: str, **environment: str) -> tuple[int, str]:
        """Returns the exit code and output of the retrain.sh that `python` wrote, started from another folder."""
        monkeypatch.setattr(sys, "executable", python)
        (best / "retrain.sh").write_text(retrain_scripts(RunConfig(), 1)["retrain.sh"])
        done = subprocess.run(
            ["sh", "my search/best/retrain.sh", "--epochs", "2 3"],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    words = "train --config=my search/best/config.toml --out=my search/best/../retrained --epochs 2 3\n"
    for name in ("tune-cropshield", "other python"):
        (program := tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        program.write_text('#!/bin/sh\necho "$0" "$@"\n')
        program.chmod(0o755)
    other, gone = f"{tmp_path}/bin/other python", "/it's gone/python"
    assert said(other) == (0, f"{other} -m tune_cropshield {words}")
    assert said(gone, PYTHON=other) == (0, f"{other} -m tune_cropshield {words}")
    assert said(gone, PATH=f"/usr/bin:/bin:{tmp_path}/bin") == (0, f"{tmp_path}/bin/tune-cropshield {words}")
    assert said(gone) == (
        2,
        "error: /it's gone/python is not there: say which Python has tune_cropshield (PYTHON=/path/to/python sh my "
        "search/best/retrain.sh)\n",
    )
    power = retrain_scripts(RunConfig(), 1)["retrain.ps1"]
    assert "$python = if ($env:PYTHON) { $env:PYTHON } else { '/it''s gone/python' }\n" in power


def test_best_says_how_photographs_are_prepared_unless_its_trial_is_of_an_earlier_version(search_dir: Path) -> None:
    (line,) = earlier_preparation(write_best(search_dir))
    assert line == (
        f"{search_dir / 'best'} was trained by an earlier version, which resized photographs twice; they are now "
        "resized once, so some predictions change: judge it anew (evaluate), or train it again"
    )
    (search_dir / "t001" / "preparation.json").write_text('{"fit": "crop"}')
    assert (write_best(search_dir) / "preparation.json").read_text() == '{"fit": "crop"}'
    assert earlier_preparation(search_dir / "best") == []


def test_export_prints_each_form(search_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = {}
    for form in ("toml", "json", "command"):
        assert main(["export", str(search_dir), "--format", form]) == 0
        printed[form] = capsys.readouterr().out

    assert "lr = 0.001\n" in printed["toml"]
    assert json.loads(printed["json"])["trial"]["lr"] == 0.001
    assert printed["command"].startswith("python train.py --model tiny_cnn --batch_size 16 --accumulation_steps 2 ")


def test_export_writes_into_a_folder(search_dir: Path, tmp_path: Path) -> None:
    assert main(["export", str(search_dir), "--to", str(tmp_path / "new" / "folder")]) == 0

    assert load_config(tmp_path / "new" / "folder" / "config.toml").trial.lr == 1e-3


def test_export_leaves_a_running_search_alone(search_dir: Path) -> None:
    journal = (search_dir / "study.journal").read_bytes()

    with locked(search_dir), pytest.raises(UserError, match="a search is running in"):
        best_run(search_dir)

    assert (search_dir / "study.journal").read_bytes() == journal
    assert not (search_dir / "best").exists()


def test_a_study_is_read_past_half_a_line_without_touching_the_journal(search_dir: Path) -> None:
    with open(search_dir / "study.journal", "a") as journal:
        journal.write('{"op_code": 4, "worker')
    before = (search_dir / "study.journal").read_bytes()

    assert len(read_study(search_dir).trials) == 3
    assert (search_dir / "study.journal").read_bytes() == before


@pytest.mark.parametrize("content", ["", "damaged\n", "{}\n", "[]\n{}\n", '{"op_code": 99}\nx\ny\n', "\x00\x01\n\n"])
def test_a_damaged_journal_is_refused_and_left_as_it_is(tmp_path: Path, content: str) -> None:
    (tmp_path / "study.journal").write_text(content)

    with pytest.raises(UserError, match=r"study\.journal is damaged: "):
        best_run(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]
    assert (tmp_path / "study.journal").read_text() == content


def test_a_search_without_a_result_is_refused(tmp_path: Path) -> None:
    open_study(tmp_path)

    with pytest.raises(UserError, match="no trial of this search has a result yet"):
        best_run(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


def test_a_missing_file_of_the_best_trial_leaves_no_half_of_best(search_dir: Path) -> None:
    (search_dir / "t001" / "classes.json").unlink()

    with pytest.raises(RunFailure, match=r"best cannot be written: .*classes.json"):
        write_best(search_dir)

    assert sorted(path.name for path in search_dir.iterdir()) == ["study.journal", "t000", "t001", "t002"]


@pytest.mark.parametrize(
    ("trial", "known"),
    [
        (TrialConfig(model="cropshield_cnn", micro_batch=16, accumulation=2), True),
        (TrialConfig(model="tiny_cnn", micro_batch=16, accumulation=2), False),
        (TrialConfig(model="vit_b_16", micro_batch=16, accumulation=2), False),
    ],
)
def test_only_networks_that_the_guide_speaks_of_get_a_call_of_its_script(trial: TrialConfig, known: bool) -> None:
    for text in retrain_scripts(RunConfig(trial=trial), 1).values():
        assert ("train.py --model custom --batch_size 16 --accumulation_steps 2 --epochs 25 " in text) is known
        assert ("guide" in text) is known
