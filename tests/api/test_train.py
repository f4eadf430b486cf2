"""`tune_cropshield.train`: what it takes, what it returns, and how it goes on."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import tune_cropshield as tc
from tune_cropshield.config.settings import RunConfig, load_config
from tune_cropshield.device import num_cores
from tune_cropshield.training.run_folder import read_metrics


def same_weights(left: Path, right: Path) -> bool:
    mine, theirs = load_file(left), load_file(right)
    return all(mine[name].equal(theirs[name]) for name in mine.keys() | theirs.keys())


def test_the_result_holds_the_last_epochs_metrics_and_the_best(trained: tc.TrainResult) -> None:
    lines = read_metrics(trained.folder)

    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert trained.last == lines[-1]
    assert (trained.last["epoch"], trained.last["updates"]) == (4, 24)  # 84 photographs, 16 at once
    assert trained.best_val_acc == max(line["val_acc"] for line in lines)
    assert lines[trained.best_epoch - 1]["val_acc"] == trained.best_val_acc
    assert trained.stopped_early is False
    assert trained.weights == trained.folder / "model.safetensors"
    assert trained.weights.is_file()


def test_tables_a_runconfig_and_a_file_train_the_same_network_in_silence(
    trained: tc.TrainResult, tables: dict[str, Any], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"file": str(trained.folder / "config.toml"), "runconfig": RunConfig.model_validate(tables)}

    for name, config in given.items():
        done = tc.train(config, out=home / name, device="cpu", progress=False)
        assert same_weights(done.weights, trained.weights)

    assert capsys.readouterr() == ("", "")


def test_arguments_go_before_the_configurations_and_early_stopping_keeps_the_best_epoch_not_the_last(
    tables: dict[str, Any], home: Path
) -> None:
    done = tc.train(tables, out=str(home / "run"), epochs=60, early_stopping=2, device="cpu", progress=False)

    lines = read_metrics(home / "run")
    accuracies = [line["val_acc"] for line in lines]
    assert done.stopped_early
    assert len(lines) < 60
    assert accuracies.index(max(accuracies)) + 1 == done.best_epoch == len(lines) - 2  # two without a better one
    assert json.loads((home / "run" / "metrics.json").read_text()) == lines[-3]
    assert load_config(home / "run" / "config.toml").trial.early_stopping == 2


class Interrupting(tc.SearchView):
    """Ctrl-C, pressed when the second epoch is told."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)
        if text.startswith("epoch   2/4"):
            raise KeyboardInterrupt


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(
    trained: tc.TrainResult, tables: dict[str, Any], home: Path
) -> None:
    view = Interrupting()
    with pytest.raises(KeyboardInterrupt):
        tc.train(tables, out=home / "run", device="cpu", progress=view)
    assert view.notes[-1].startswith("To continue:  ")
    assert view.notes[-1].endswith(f" --out {home / 'run'} --resume --device cpu")

    done = tc.train(tables, out=home / "run", device="cpu", resume=True, progress=False)

    assert [line["epoch"] for line in read_metrics(home / "run")] == [1, 2, 3, 4]
    assert done.last["val_acc"] == trained.last["val_acc"]
    assert same_weights(done.weights, trained.weights)


def test_every_fault_of_the_tables_and_the_arguments_is_told_at_once(home: Path) -> None:
    with pytest.raises(tc.ConfigError) as told:
        tc.train({"trial": {"lr": "1e-4", "epoch": 3}}, epochs=0)

    number, epochs, unknown = told.value.faults
    assert number == 'config: trial.lr: must be a number, but got "1e-4"'
    assert epochs == "--epochs: must be at least 1, but got 0"
    assert unknown.startswith("config: trial.epoch: unknown key; did you mean epochs?")


def test_a_configuration_without_photographs_and_an_unknown_device_are_refused() -> None:
    with pytest.raises(tc.UserError, match="the configuration names no photographs: give --data DIR"):
        tc.train({"trial": {"model": "tiny_cnn"}})
    with pytest.raises(
        tc.UserError, match="--device: must be one of auto, cpu, cuda, but got 'gpu'; did you mean cuda"
    ):
        tc.train({}, device="gpu")  # type: ignore[arg-type]


def test_a_training_for_a_time_says_what_cannot_go_with_it(tables: dict[str, Any], home: Path) -> None:
    for more, message in (
        ({"epochs": 3}, "--time fits the number of epochs to the time: leave out --epochs, or --time"),
        ({"profile": True}, "--profile traces two epochs of a training whose length is known: leave out --time"),
    ):
        with pytest.raises(tc.UserError, match=re.escape(message)):
            tc.train(tables, time="20m", out=home / "run", progress=False, **more)
    with pytest.raises(tc.UserError, match="'20' is not a duration"):
        tc.train(tables, time="20", out=home / "run", progress=False)
    assert not (home / "run").exists()


@pytest.mark.slow
def test_a_training_for_a_time_takes_all_cores_and_counts_the_time_of_all_its_starts(
    tables: dict[str, Any], home: Path
) -> None:
    began = time.monotonic()
    done = tc.train(tables, time="8s", out=home / "run", device="cpu", progress=False)

    assert time.monotonic() - began == pytest.approx(8.0, abs=1.0)
    trial = load_config(home / "run" / "config.toml").trial
    assert trial.threads == num_cores()
    assert done.last["epoch"] == trial.epochs > 4
    assert not done.stopped_early

    with pytest.raises(
        tc.UserError, match=r"has used up this time \(time: 3 s in all, \d+ s used\): give a longer one \(--time\)"
    ):
        tc.train(tables, time="3s", out=home / "run", resume=True, device="cpu", progress=False)
    longer = tc.train(tables, time="11s", out=home / "run", resume=True, device="cpu", progress=False)
    assert longer.last["epoch"] > done.last["epoch"]
