"""What was validated is what is deployed: training's own validation and `predict` say the same of each photograph."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from tune_cropshield.config.settings import DataConfig, Fit, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.outcome.predict import predict
from tune_cropshield.training.loop import run_trial


@pytest.fixture(scope="module")
def long_leaves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes of 12 drawn leaves, each of a size of its own: landscapes, portraits and squares."""
    root = draw_leaves(tmp_path_factory.mktemp("long") / "leaves", classes=3, per_class=12, image_size=120)
    for number, path in enumerate(photographs_below(root)[0]):
        with Image.open(path) as leaf:
            picture = leaf.convert("RGB").resize((60 + 17 * (number % 7), 60 + 23 * (number % 5)))
        picture.save(path)
    return root


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_predict_gives_the_probabilities_of_the_validation(long_leaves: Path, tmp_path: Path, fit: Fit) -> None:
    data = DataConfig(dir=str(long_leaves), val_share=0.4, fit=fit)
    trial = TrialConfig(
        model="tiny_cnn",
        image_size=40,
        effective_batch=8,
        epochs=2,
        warmup_epochs=0,
        lr=3e-3,
        augment="none",
        threads=1,
    )
    opened = open_data(data, {40}, tmp_path / "cache")
    run_trial(
        RunConfig(data=data, trial=trial),
        DeviceData(opened, torch.device("cpu")),
        tmp_path / "run",
        lambda report: None,
    )

    with (tmp_path / "run" / "predictions.csv").open(newline="") as file:
        validated = {row["photograph"]: row for row in csv.DictReader(file)}
    assert len(validated) >= 9
    paths = [long_leaves / name for name in validated]
    for prediction in predict(tmp_path / "run", paths, torch.device("cpu")):
        row = validated[prediction.path.relative_to(long_leaves).as_posix()]
        name, share = next(iter(prediction.probabilities.items()))
        assert (name, share) == (row["predicted"], pytest.approx(float(row["probability"]), abs=1e-4))
    assert json.loads((tmp_path / "run" / "preparation.json").read_text())["fit"] == fit
