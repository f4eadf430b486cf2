"""Where a trial's time is counted to."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tune_cropshield.training.clock import CHECKPOINT, PARTS, STEP, TrialClock, read_times


def test_every_second_is_counted_once_and_to_its_part(tmp_path: Path) -> None:
    started = time.perf_counter()
    clock = TrialClock(tmp_path)
    time.sleep(0.05)
    clock.write("setup")
    clock.enter(STEP)
    time.sleep(0.2)
    clock.trained(data_wait_s=0.125)
    time.sleep(0.1)
    clock.enter(CHECKPOINT)
    clock.write("epoch")
    took = time.perf_counter() - started
    setup, epoch = read_times(tmp_path)
    assert setup["setup"] >= 0.05
    assert epoch["data_wait"] == 0.125
    assert epoch["step"] >= 0.2 - 0.125 - 0.001
    assert epoch["evaluation"] >= 0.1 - 0.001
    assert sum(line[part] for line in (setup, epoch) for part in PARTS) == pytest.approx(took, abs=0.02)
    assert sum(epoch[part] for part in PARTS) == pytest.approx(epoch["ended"] - setup["ended"], abs=1e-4)
