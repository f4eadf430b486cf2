"""A small training that several tests look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_cropshield as tc

TRIAL: dict[str, Any] = {
    "model": "tiny_cnn",
    "image_size": 32,
    "augment": "none",
    "schedule": "constant",
    "effective_batch": 16,
    "lr": 5e-3,
    "threads": 1,
    "epochs": 4,
}


@pytest.fixture(scope="session")
def tables(drawn_leaves: Path) -> dict[str, Any]:
    """A configuration: 4 classes of 30 photographs, 21 of each to train, 3 to validate, 6 to test."""
    return {"data": {"dir": str(drawn_leaves), "test_share": 0.2}, "trial": TRIAL}


@pytest.fixture(scope="session")
def trained(tables: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tc.TrainResult:
    """A finished training."""
    place = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        return tc.train(tables, out=place / "run", device="cpu", progress=False)
