"""`train --profile`: a trace and a table of one epoch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, save_config
from tune_cropshield.outcome.profile import table
from tune_cropshield.training.clock import PARTS
from tune_cropshield.training.step import named


def test_train_profile_writes_a_trace_and_says_where_an_epochs_time_goes(
    drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunConfig(
        data=DataConfig(dir=str(drawn_leaves)),
        trial=TrialConfig(model="tiny_cnn", image_size=32, epochs=3, effective_batch=16, threads=1),
    )
    save_config(run, home / "config.toml")
    assert (
        main(
            ["train", "--config", str(home / "config.toml"), "--out", str(home / "out"), "--device", "cpu", "--profile"]
        )
        == 0
    )
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("epoch 2 took"))
    rows = {line[:22].strip(): float(line.split()[-2]) for line in lines[start + 1 : start + 9]}
    assert set(rows) == {
        "data wait",
        "augmentation",
        "forward + backward",
        "optimiser",
        "rest of the steps",
        "evaluation",
        "checkpoint",
        "report",
    }
    assert rows["forward + backward"] > rows["data wait"]
    assert sum(rows.values()) == pytest.approx(100, abs=1)
    trace = json.loads((home / "out" / "trace.json").read_text())
    named_events = [event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"]
    assert named_events.count("optimiser") == 6  # 96 images in windows of 16, one epoch


def test_a_table_divides_an_epoch() -> None:
    line = {**dict.fromkeys(PARTS, 0.0), "step": 6.0, "data_wait": 1.0, "evaluation": 2.0, "report": 1.0}
    assert table(line, {"augmentation": 1.0, "optimiser": 0.5}, 2) == [
        "epoch 2 took 10.00 s under the profiler, which slows it down:",
        "  rest of the steps       4.500 s  45.0 %",
        "  evaluation              2.000 s  20.0 %",
        "  data wait               1.000 s  10.0 %",
        "  augmentation            1.000 s  10.0 %",
        "  report                  1.000 s  10.0 %",
        "  optimiser               0.500 s   5.0 %",
        "  checkpoint              0.000 s   0.0 %",
    ]


def test_a_range_is_seen_by_a_profiler_only() -> None:
    with named("before"):
        torch.ones(1)
    with profile(activities=[ProfilerActivity.CPU]) as seen, named("during"):
        torch.ones(1)
    assert {event.key for event in seen.key_averages()} & {"before", "during"} == {"during"}
