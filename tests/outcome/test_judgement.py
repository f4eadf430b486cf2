"""The winner, photograph by photograph."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.outcome.report.judgement import judge
from tune_cropshield.training.loop import run_trial


@pytest.mark.slow
def test_the_winner_is_shown_as_it_judged_in_its_best_epoch_where_the_photographs_are_the_same(
    drawn_leaves: Path, home: Path, tmp_path: Path
) -> None:
    config = RunConfig(
        data=DataConfig(dir=str(drawn_leaves)),
        trial=TrialConfig(model="tiny_cnn", image_size=32, epochs=2, effective_batch=32),
    )
    data = open_data(config.data, {32}, home / "cache")
    run_trial(config, DeviceData(data, torch.device("cpu")), tmp_path / "run", report=lambda report: None)
    labels_N = data.store.labels[torch.from_numpy(data.split.val)]
    accuracy = json.loads((tmp_path / "run" / "metrics.json").read_text())["val_acc"]
    kept = load_file(tmp_path / "run" / "predictions.safetensors")
    assert float((kept["predicted"] == labels_N).double().mean()) == accuracy
    again = judge(tmp_path / "run", home / "cache", data, "cpu")
    assert again.accuracy == pytest.approx(accuracy)

    wrong = (kept["predicted"] != labels_N).nonzero()[:, 0]
    other = kept["predicted"].clone()
    other[wrong[0]] = (
        (other[wrong[0]] + 1) % 4 if (other[wrong[0]] + 1) % 4 != labels_N[wrong[0]] else (other[wrong[0]] + 2) % 4
    )
    save_file({**kept, "predicted": other}, tmp_path / "run" / "predictions.safetensors")  # as wrong, but otherwise
    assert judge(tmp_path / "run", home / "cache", data, "cpu").confusion != again.confusion  # it was not asked anew
    save_file(
        {**kept, "predicted": (labels_N + 1) % 4}, tmp_path / "run" / "predictions.safetensors"
    )  # not of these photographs
    assert judge(tmp_path / "run", home / "cache", data, "cpu").confusion == again.confusion
