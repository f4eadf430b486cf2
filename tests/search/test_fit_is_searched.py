"""A search over how photographs are made square, from its start to the network that it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import tune_cropshield as tc
from tune_cropshield.config.settings import load_config
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.search.folder import trial_folder

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]

SPACE = {
    "trial": {"model": "tiny_cnn", "image_size": 32, "progressive_sizes": {"1": 40}},
    "space": {"fit": {"choice": ["squash", "pad"]}, "lr": {"log": [1e-3, 1e-2]}},
    "baseline": {},
    "search": {"trials": 3, "epochs": 2, "grace_epochs": 1, "device": "cpu"},
    "start": [{"fit": "pad", "lr": 2e-3}],
}


def test_trials_of_each_fit_run_and_the_winner_is_used_as_it_was_trained(home: Path) -> None:
    leaves = draw_leaves(home / "leaves", classes=3, per_class=20, image_size=64)
    for path in photographs_below(leaves)[0]:
        with Image.open(path) as leaf:
            wide = leaf.convert("RGB").resize((110, 50))
        wide.save(path)

    found = tc.search(data=leaves, space=SPACE, out=home / "out", progress=False)
    fits = [row["fit"] for row in found.trials]
    assert fits[:2] == ["squash", "pad"]  # the first of the space, and the starting point
    assert len(fits) == 3
    for number, fit in enumerate(fits):
        folder = trial_folder(home / "out", number)
        assert load_config(folder / "config.toml").data.fit == fit
        preparation = json.loads((folder / "preparation.json").read_text())
        assert (preparation["fit"], preparation["image_size"]) == (fit, 40)
    assert found.best is not None
    assert json.loads((found.best.folder / "preparation.json").read_text())["fit"] == fits[found.best.number]
    assert (home / "out" / "report.html").stat().st_size > 10_000

    judged = tc.evaluate(home / "out" / "best")
    assert judged.accuracy == pytest.approx(found.best.val_acc)

    confirmed = tc.confirm(home / "out", top=2, seeds=2, device="cpu", progress=False)
    assert confirmed.photographs > 0
