"""How many trials share a device: the decision, and the measurement with real processes on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from tune_cropshield.config import TrialConfig
from tune_cropshield.memory.gpu_kernels import VARIANTS, fastest_variant
from tune_cropshield.memory.gpu_packing import told
from tune_cropshield.memory.packed_step import Share
from tune_cropshield.memory.packing import SpeedCache, best_number, measure_each, measure_packing, speed_together


@pytest.mark.parametrize(
    ("speeds", "number"),
    [
        ({}, 1),
        ({1: 100.0}, 1),
        ({1: 100.0, 2: 109.0}, 1),  # less than a tenth is no gain
        ({1: 100.0, 2: 110.0}, 2),
        ({1: 100.0, 2: 180.0, 3: 250.0, 4: 251.0}, 3),  # as fast as 4, with more memory for each
        ({1: 100.0, 2: 180.0, 3: 250.0, 4: 300.0}, 4),
        ({1: 100.0, 2: 108.0, 3: 111.0}, 3),  # 2 is about as fast, but gains too little
        ({1: 100.0, 2: 90.0}, 1),
        ({2: 500.0}, 1),
    ],
)
def test_trials_are_packed_only_where_they_gain_a_tenth(speeds: dict[int, float], number: int) -> None:
    assert best_number(speeds) == number


def test_images_count_only_while_all_processes_run() -> None:
    first = [(0.0, 0), (1.0, 100), (2.0, 100), (3.0, 100)]
    second = [(1.5, 0), (2.5, 40), (3.5, 40)]
    assert speed_together([first]) == 100.0
    assert speed_together([first, second]) == pytest.approx((150 + 60) / 1.5)  # from 1.5 to 3
    assert speed_together([first, [(4.0, 0), (5.0, 10)]]) == 0.0


def test_processes_are_measured_together_with_the_real_step() -> None:
    trial = TrialConfig(model="tiny_cnn", image_size=32, effective_batch=8, micro_batch=4, max_norm=1.0, threads=1)
    asked: list[int] = []

    def share_of(number: int) -> Share | None:
        asked.append(number)
        return Share(trial, 4, None, "cpu") if number <= 2 else None

    speeds = measure_packing(share_of, most=3, seconds=0.5)
    assert 1 in speeds and speeds[1] > 10
    assert asked[:2] == [1, 2]
    assert set(speeds) == {1, 2}
    assert speeds[2] > 10


def test_nothing_is_started_where_not_even_one_trial_fits() -> None:
    assert measure_packing(lambda number: None) == {}


def test_speeds_are_kept_for_what_they_were_measured_of(tmp_path: Path) -> None:
    cache = SpeedCache(tmp_path, "packing", {"model": "tiny_cnn", "total_mib": 8000})
    assert cache.load() is None
    cache.save({"1": 100.0, "2": 150.0})
    assert cache.load() == {"1": 100.0, "2": 150.0}
    assert SpeedCache(tmp_path, "packing", {"model": "tiny_cnn", "total_mib": 4000}).load() is None
    cache.path.write_text("[]", encoding="utf-8")
    assert cache.load() is None


def test_what_was_measured_is_said_with_what_follows() -> None:
    assert told(1, {1: 2500.0}) == "one trial at a time on the GPU: two do not fit its budget"
    assert told(1, {1: 2500.0, 2: 2400.0}) == "one trial at a time on the GPU: 2 together make 2400 images/s, one alone 2500 (0.96 x)"
    assert told(3, {1: 1000.0, 2: 1900.0, 3: 2600.0}) == "3 trials share the GPU: 3 together make 2600 images/s, one alone 1000 (2.60 x)"


def test_precisions_and_layouts_are_measured_one_after_another_in_one_process() -> None:
    trial = TrialConfig(model="tiny_cnn", image_size=32, effective_batch=8, threads=1)
    shares = {name: Share(trial.model_copy(update=settings), 4, None, "cpu") for name, settings in VARIANTS.items() if "fp16" not in name}
    assert set(measure_each(shares, 0.3)) == {"bf16 channels_last"}


@pytest.mark.parametrize(
    ("speeds", "fastest"),
    [
        ({"fp16 channels_last": 100.0, "bf16 channels_last": 102.0, "fp16 contiguous": 60.0}, "fp16 channels_last"),  # no more than noise
        ({"fp16 channels_last": 100.0, "bf16 channels_last": 104.0, "fp16 contiguous": 60.0}, "bf16 channels_last"),
        ({"fp16 channels_last": 100.0, "bf16 channels_last": 104.0, "fp16 contiguous": 120.0}, "fp16 contiguous"),
        ({}, "fp16 channels_last"),
    ],
)
def test_the_usual_precision_and_layout_stay_unless_another_is_faster_by_more_than_noise(speeds: dict[str, float], fastest: str) -> None:
    assert fastest_variant(speeds) == fastest
