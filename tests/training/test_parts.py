"""A trial in parts: folds or seeds one after another, killed and continued at any place, and what it is worth."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config
from tune_cropshield.config.space import SearchSettings
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.errors import DataError, DivergedError
from tune_cropshield.training.loop import TrialEnded, run_trial
from tune_cropshield.training.metrics import METRIC_NAMES
from tune_cropshield.training.parts import part_epochs
from tune_cropshield.training.progress import TrialReport
from tune_cropshield.training.run_folder import (
    RunFolder,
    best_epoch,
    best_of_parts,
    best_so_far,
    network_folder,
    read_metrics,
    spread_of_parts,
)

EXACT = [name for name in METRIC_NAMES if name not in ("images_per_s", "data_wait_s", "epoch_s")]


def line(epoch: int, val_acc: float, part: int, ended: bool = False) -> dict[str, Any]:
    return {"epoch": epoch, "val_acc": val_acc, "val_loss": 1 - val_acc, "updates": epoch, "part": part} | {
        "part_ended": ended
    }


# Parts of three epochs; early stopping ended the second one after two.
LINES = [
    line(1, 0.5, 0),
    line(2, 0.75, 0),
    line(3, 0.625, 0, True),
    line(4, 0.25, 1),
    line(6, 0.5, 1, True),
    line(7, 1.0, 2),
]


def test_a_trial_in_parts_is_worth_the_mean_of_those_that_have_ended() -> None:
    assert best_so_far(LINES) == {1: 0.5, 2: 0.75, 3: 0.75, 4: 0.75, 6: 0.625, 7: 0.625}
    assert best_so_far([*LINES, line(9, 0.5, 2, True)])[9] == 0.75
    assert best_epoch(LINES) == {"epoch": 2, "val_acc": 0.625, "val_loss": 0.375, "updates": 2, "part": 0}
    assert best_epoch(LINES[:1]) == {"epoch": 1, "val_acc": 0.5, "val_loss": 0.5, "updates": 1, "part": 0}
    assert [found["epoch"] for found in best_of_parts(LINES)] == [2, 6]
    assert spread_of_parts(LINES) == pytest.approx(0.1767767)  # 0.25 / sqrt(2)
    assert spread_of_parts(LINES[:4]) is None
    assert (best_epoch([]), best_of_parts([]), spread_of_parts([])) == (None, [], None)


def config(leaves: Path, **trial: Any) -> RunConfig:
    settings = {"model": "tiny_cnn", "image_size": 32, "lr": 5e-3, "threads": 1, "epochs": 2}
    return RunConfig(data=DataConfig(dir=str(leaves)), trial=TrialConfig.model_validate({**settings, **trial}))


@pytest.fixture
def data(drawn_leaves: Path, shared_cache: Path) -> DeviceData:
    return DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache), torch.device("cpu"))


Train = Callable[..., list[TrialReport]]


@pytest.fixture
def train(drawn_leaves: Path, data: DeviceData) -> Train:
    """Trains a trial of three folds for at most so many reports, and returns these."""

    def reports(
        folder: Path, count: int | None = None, search: SearchSettings | None = None, **trial: Any
    ) -> list[TrialReport]:
        run = config(drawn_leaves, **trial)
        parts = (search or SearchSettings(folds=3)).parts_of(run)
        found = []
        with closing(part_epochs(run, parts, data, folder, resume=True, checkpoint_every_s=0)) as epochs:
            for report in epochs:
                found.append(report)
                if len(found) == count:
                    break
        return found

    return reports


def exact(folder: Path) -> list[dict[str, Any]]:
    return [{name: line[name] for name in (*EXACT, "part", "part_ended")} for line in read_metrics(folder)]


def test_parts_are_trained_one_after_another_each_as_it_would_be_alone(
    train: Train, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    reports = train(tmp_path / "t000")

    assert [(report.metrics.epoch, report.part, report.finished) for report in reports] == [
        (1, 0, False),
        (2, 0, False),
        (3, 1, False),
        (4, 1, False),
        (5, 2, False),
        (6, 2, True),
    ]
    lines = read_metrics(tmp_path / "t000")
    assert [report.best_val_acc for report in reports] == list(best_so_far(lines).values())
    assert [(line["epoch"], line["part"], line["part_ended"]) for line in lines] == [
        (1, 0, False),
        (2, 0, True),
        (3, 1, False),
        (4, 1, True),
        (5, 2, False),
        (6, 2, True),
    ]
    # The part's own config.toml repeats it; the trial's is the setting on the split itself.
    own = load_config(tmp_path / "t000" / "part1" / "config.toml")
    assert (own.data.folds, own.data.fold) == (3, 1)
    alone = DeviceData(open_data(own.data, {32}, shared_cache), torch.device("cpu"))
    assert [len(alone.data.split.train), len(alone.data.split.val)] == [72, 36]
    run_trial(own, alone, tmp_path / "alone", report=lambda report: None)
    assert [line["val_loss"] for line in read_metrics(tmp_path / "alone")] == [line["val_loss"] for line in lines[2:4]]
    assert load_config(tmp_path / "t000" / "config.toml") == config(drawn_leaves)
    # One network is kept: that of the best part.
    best = max(range(3), key=lambda part: best_of_parts(lines)[part]["val_acc"])
    assert network_folder(tmp_path / "t000") == tmp_path / "t000" / f"part{best}"
    weights = [path.parent.name for path in tmp_path.glob("t000/part*/model.safetensors")]
    assert weights == [f"part{best}"]
    assert len(list(tmp_path.glob("t000/part*/predictions.csv"))) == 3
    # TensorBoard: the trial's own run, and one of each part below it.
    events = EventAccumulator(str(tmp_path / "t000"))
    events.Reload()
    assert [event.step for event in events.Scalars("validation/best_val_acc")] == [1, 2, 3, 4, 5, 6]
    assert len(list(tmp_path.glob("t000/part*/events.out.tfevents.*"))) == 3


def test_replicates_differ_in_their_seed_alone(train: Train, tmp_path: Path) -> None:
    reports = train(tmp_path / "t000", search=SearchSettings(replicates=2), epochs=1, seed=7)

    configs = [load_config(tmp_path / "t000" / f"part{part}" / "config.toml") for part in (0, 1)]
    assert [each.trial.seed for each in configs] == [7, 8]
    assert configs[0].data == configs[1].data == DataConfig(dir=configs[0].data.dir)
    lines = read_metrics(tmp_path / "t000")
    assert lines[0]["train_loss"] != lines[1]["train_loss"]
    assert reports[-1].best_val_acc == (lines[0]["val_acc"] + lines[1]["val_acc"]) / 2


@pytest.mark.parametrize("stopped", [1, 2, 3, 4, 6])
def test_a_trial_that_was_stopped_anywhere_ends_as_one_that_was_not(train: Train, tmp_path: Path, stopped: int) -> None:
    whole = train(tmp_path / "whole")
    before = train(tmp_path / "t000", stopped)
    after = train(tmp_path / "t000")

    assert exact(tmp_path / "t000") == exact(tmp_path / "whole")
    assert [report.metrics.epoch for report in after] == list(range(stopped, 7))  # the last is told again
    values = {report.metrics.epoch: report.best_val_acc for report in [*before, *after]}
    assert values == {report.metrics.epoch: report.best_val_acc for report in whole}
    assert network_folder(tmp_path / "t000").name == network_folder(tmp_path / "whole").name
    assert (network_folder(tmp_path / "t000") / "model.safetensors").is_file()


def test_a_kill_between_two_parts_and_before_a_parts_first_epoch(train: Train, tmp_path: Path) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "t000", 3)
    shutil.rmtree(tmp_path / "t000" / "part1")  # as if the second part had got no further than its folder
    (tmp_path / "t000" / "part1").mkdir()
    trial = tmp_path / "t000" / "metrics.jsonl"
    trial.write_text("".join(f"{json.dumps(line)}\n" for line in read_metrics(tmp_path / "t000")[:2]))

    assert [report.metrics.epoch for report in train(tmp_path / "t000")] == [3, 4, 5, 6]
    assert exact(tmp_path / "t000") == exact(tmp_path / "whole")


def test_a_part_that_ends_early_counts_as_long_as_the_others(train: Train, tmp_path: Path) -> None:
    settings = {"epochs": 9, "early_stopping": 1, "lr": 1e-9, "schedule": "constant", "warmup_epochs": 0.0}
    reports = train(tmp_path / "t000", **settings)

    assert len(reports) < 27
    assert {report.part: report.metrics.epoch for report in reports} == {0: 9, 1: 18, 2: 27}
    assert [report.metrics.epoch for report in train(tmp_path / "t000", **settings)] == [27]


def test_only_a_trial_that_may_go_on_keeps_a_checkpoint(train: Train, data: DeviceData, tmp_path: Path) -> None:
    train(tmp_path / "t000", 3)
    kept = [RunFolder(tmp_path / "t000" / part).checkpoint()[0] is not None for part in ("part0", "part1")]
    assert kept == [False, True]

    run = config(Path(data.data.store.root))
    epochs = part_epochs(run, SearchSettings(folds=3).parts_of(run), data, tmp_path / "t001")
    next(epochs)
    with pytest.raises(TrialEnded):
        epochs.throw(TrialEnded())
    assert RunFolder(tmp_path / "t001" / "part0").checkpoint()[0] is None


def test_a_part_that_diverges_tells_the_trials_epoch(train: Train, tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text("""
import torch
from tune_cropshield.training.losses import SampleLoss

class Wrong(SampleLoss):
    calls = 0

    def per_sample(self, logits_BK, labels_B):
        Wrong.calls += 1
        return logits_BK.sum(1) * (float("nan") if Wrong.calls > 3 else 0.0)
""")
    with pytest.raises(DivergedError, match="in epoch 2"):
        train(tmp_path / "t000", epochs=1, loss=f"{tmp_path}/wrong.py:Wrong", effective_batch=32)
    assert [line["part_ended"] for line in read_metrics(tmp_path / "t000")] == [True]


def test_folds_beside_given_validation_photographs_are_refused(data: DeviceData, drawn_leaves: Path) -> None:
    given = data.data.__class__(data.data.stores, data.data.split, given_sides=frozenset({"train", "val"}))
    with pytest.raises(DataError, match=r"the folders name the validation photographs \(val\): leave folds out, or"):
        given.as_said(DataConfig(dir=str(drawn_leaves), folds=3))
