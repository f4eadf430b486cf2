"""Where a search's time goes: the ledger that adds the trials up."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.outcome.ledger import Ledger, Start, ledger_of, sentence, start_seconds, write_ledger
from tune_cropshield.training.clock import PARTS, read_times
from tune_cropshield.training.loop import trial_epochs
from tune_cropshield.training.run_folder import read_metrics


def line(what: str, ended: float, worker: int = 1, **parts: float) -> dict[str, Any]:
    return {"what": what, "worker": worker, "ended": ended, **dict.fromkeys(PARTS, 0.0), **parts}


def test_a_ledger_counts_what_lies_within_its_time_and_the_rest_is_idle() -> None:
    lines = [
        line("setup", 110.0, setup=10.0),
        line("epoch", 130.0, step=15.0, evaluation=4.0, report=1.0),
        line("epoch", 170.0, step=10.0),
    ]
    whole = ledger_of(lines, [Start(slots=2, began=90.0, ended=170.0)])
    assert whole.parts == {
        "setup": 10.0,
        "data_wait": 0.0,
        "step": 25.0,
        "evaluation": 4.0,
        "checkpoint": 0.0,
        "report": 1.0,
    }
    assert whole.idle_s == 120.0
    assert whole.training_share == pytest.approx(29 / 160)
    later = ledger_of(lines, [Start(slots=1, began=120.0, ended=165.0)])  # half of the first epoch, half of the second
    assert later.parts["step"] == pytest.approx(7.5 + 5.0)
    assert later.parts["evaluation"] == pytest.approx(2.0)
    assert later.parts["setup"] == 0.0


def test_a_ledger_in_a_sentence() -> None:
    whole = Ledger(
        2,
        100.0,
        200.0,
        {"setup": 20.0, "data_wait": 0.5, "step": 120.0, "evaluation": 10.0, "checkpoint": 4.0, "report": 2.0},
    )
    later = Ledger(2, 40.0, 80.0, {**whole.parts, "step": 66.0})
    assert sentence(whole, later) == (
        "100 s with 2 trials in parallel: 60 % training, 32 % start-up and waiting, 5 % evaluation, 3 % saving and "
        "reporting; after the first minute 95 % training and evaluation"
    )
    assert sentence(whole, Ledger(2, 0.0, 0.0, whole.parts)).endswith("3 % saving and reporting")
    assert sentence(Ledger(1, 200.0, 200.0, whole.parts), later).startswith(
        "200 s one trial at a time: 60 % training, "
    )
    assert sentence(Ledger(2, 0.0, 0.0, whole.parts), later) == (
        "where the time went is not known: the clock was set back during the search"
    )


def test_the_time_of_a_resumed_search_is_that_of_all_its_starts(tmp_path: Path) -> None:
    began = 1_700_000_000.0  # 2023-11-14T22:13:20 UTC

    def launch(after_s: int, at_once: int) -> None:
        started = datetime.fromtimestamp(began + after_s, UTC).strftime("%Y-%m-%dT%H:%M:%S%z")
        with open(tmp_path / "starts.jsonl", "a") as file:
            file.write(json.dumps({"started": started, "trials_at_once": at_once}) + "\n")

    def trained(number: int, **line_of: float) -> None:
        (tmp_path / f"t00{number}").mkdir(exist_ok=True)
        with open(tmp_path / f"t00{number}" / "times.jsonl", "a") as file:
            file.write(json.dumps(line("epoch", began + line_of.pop("after_s"), **line_of)) + "\n")

    # ended in order: 50 s of two slots, 40 s of steps
    launch(0, 2)
    trained(0, after_s=30.0, step=30.0)
    trained(1, after_s=40.0, step=10.0)
    assert write_ledger(tmp_path, 2, began, began + 50).startswith("50 s with 2 trials in parallel: 60 % start-up ")
    # killed after its last line, 20 s after its start
    launch(1000, 2)
    trained(0, after_s=1020.0, step=15.0)
    # went on to the end: 30 s of one slot, nothing left to train
    launch(2000, 1)
    told = write_ledger(tmp_path, 1, began + 2000, began + 2030)
    kept = json.loads((tmp_path / "ledger.json").read_text())

    assert told == "100 s in 3 starts one trial at a time: 68 % start-up and waiting, 32 % training"
    assert kept["starts"] == [
        {"slots": 2, "began": began, "ended": began + 50},
        {"slots": 2, "began": began + 1000, "ended": began + 1020},
        {"slots": 1, "began": began + 2000, "ended": began + 2030},
    ]
    whole = kept["whole"]
    assert (whole["wall_s"], whole["slots_s"], whole["parts"]["step"]) == (100.0, 170.0, 55.0)
    assert whole["idle_s"] == pytest.approx(115.0)
    # and again, without a new start in between
    launch(3000, 1)
    assert write_ledger(tmp_path, 1, began + 3000, began + 3030).startswith("130 s in 4 starts ")


def test_a_start_is_counted_from_the_last_epoch_of_the_trial_before_it_in_the_same_worker() -> None:
    first = [line("setup", 10.0), line("epoch", 20.0), line("epoch", 30.0), line("end", 31.5)]
    second = [line("setup", 32.0), line("epoch", 40.0)]
    elsewhere = [line("setup", 12.0, worker=2), line("epoch", 39.0, worker=2)]
    assert start_seconds([first, elsewhere, second]) == [2.0]


def test_the_parts_of_a_real_trial_add_up_to_its_time(drawn_leaves: Path, shared_cache: Path, tmp_path: Path) -> None:
    data = DeviceData(open_data(DataConfig(dir=str(drawn_leaves)), {32}, shared_cache), torch.device("cpu"))
    run = RunConfig(
        data=DataConfig(dir=str(drawn_leaves)), trial=TrialConfig(model="tiny_cnn", image_size=32, epochs=4, threads=1)
    )
    started = time.perf_counter()
    epochs = trial_epochs(run, data, tmp_path)
    for _ in range(3):
        next(epochs)
    time.sleep(0.5)  # the search thinks
    epochs.close()  # type: ignore[attr-defined]
    seconds = time.perf_counter() - started
    lines = read_times(tmp_path)
    assert [line["what"] for line in lines] == ["setup", "epoch", "epoch", "epoch", "end"]
    assert sum(line[part] for line in lines for part in PARTS) == pytest.approx(seconds, rel=0.03)
    assert lines[-1]["report"] >= 0.5
    metrics = read_metrics(tmp_path)
    assert [line["step"] + line["data_wait"] + line["evaluation"] for line in lines[1:4]] == pytest.approx(
        [line["epoch_s"] for line in metrics], rel=0.2, abs=0.05
    )
