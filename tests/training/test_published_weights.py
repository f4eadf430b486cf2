"""Whether published weights can be had is known in seconds, with and without a network."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tune_cropshield.training import published_weights
from tune_cropshield.training.published_weights import weights_can_be_had, weights_file


def test_weights_that_lie_in_torchs_folder_can_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = weights_file("resnet18")
    assert file == tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")

    weights_can_be_had.cache_clear()
    assert weights_can_be_had("resnet18")
    weights_can_be_had.cache_clear()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/weights.pth", "http://192.0.2.1/weights.pth", "no address"])
def test_a_server_that_does_not_answer_costs_seconds(url: str) -> None:
    began = time.monotonic()

    assert not published_weights._answers(url)
    assert time.monotonic() - began < 9
