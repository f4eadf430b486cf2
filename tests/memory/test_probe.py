"""The probe's process, what it measures, and what is kept of it. The step itself is the trial's own, on a CPU here."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.device import Card
from tune_cropshield.errors import RunFailure
from tune_cropshield.memory.measure.cache import ProbeCache, identity, usable
from tune_cropshield.memory.measure.points import Point
from tune_cropshield.memory.measure.process import Probe, Request

TRIAL = TrialConfig(model="tiny_cnn", image_size=32)
REQUEST = Request(TRIAL, 4, share_mib=1000.0, device="cpu")


def probe_that(name: str, timeout_s: float = 60.0) -> Probe:
    """Returns a probe whose process is a function of probe_processes.py."""
    return Probe(REQUEST, ("-P", "-m", "probe_processes", name), timeout_s)


ROOT = Path(__file__).parents[2]
CARD = Card("NVIDIA H200", "580.159", 143_771.0, 143_000.0)


def test_a_process_that_dies_is_replaced_and_its_point_does_not_fit() -> None:
    with probe_that("dies_at_64") as probe:
        before, dead, after = (probe.measure(size) for size in (16, 64, 32))
    assert before.peak_reserved_mib != after.peak_reserved_mib
    assert dead == Point(64, 1000.0, reason="the process died (exit code 3)")
    assert (after.micro_batch, probe.context_mib) == (32, 450.0)


def test_a_dead_context_does_not_fit() -> None:
    with probe_that("loses_its_context") as probe:
        assert probe.measure(16).reason == "CUDA error: an illegal memory access was encountered"
        assert probe.measure(8).peak_reserved_mib is None


def test_a_fault_of_the_step_is_not_taken_for_memory() -> None:
    with (
        probe_that("has_a_fault") as probe,
        pytest.raises(RunFailure, match=r"(?s)tiny_cnn failed at micro-batch 16:.*ZeroDivisionError"),
    ):
        probe.measure(16)


@pytest.mark.slow
def test_a_process_that_hangs_is_ended_and_told_about() -> None:
    with probe_that("hangs", timeout_s=2.0) as probe:
        started = time.perf_counter()
        with pytest.raises(RunFailure, match="tiny_cnn hangs at micro-batch 16"):
            probe.measure(16)
        assert time.perf_counter() - started < 30


def test_a_process_that_cannot_start_is_told_about_with_its_own_words() -> None:
    with (
        Probe(REQUEST, ("-m", "no_such_module")) as probe,
        pytest.raises(
            RunFailure, match=r"(?s)tiny_cnn could not start \(exit code 1\):.*No module named no_such_module"
        ),
    ):
        probe.measure(16)


OWN_MODEL = """
import os
from torch import nn

print("a library is loaded")
os.write(1, b"a word from C")

class Small(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))
"""


@pytest.mark.slow
def test_a_users_own_network_is_measured_and_what_it_prints_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_MODEL, encoding="utf-8")
    trial = TrialConfig(model=f"{tmp_path / 'own.py'}:Small", image_size=32)

    with Probe(Request(trial, 4, 1000.0, "cpu")) as probe:
        point = probe.measure(4)

    assert (point.micro_batch, point.reason) == (4, "")
    assert point.images_per_s is not None


def test_a_users_own_network_that_has_changed_is_measured_anew(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_MODEL, encoding="utf-8")
    trial = TrialConfig(model=f"{tmp_path / 'own.py'}:Small", image_size=32)
    ProbeCache(tmp_path, identity(trial, 4, "fp16", CARD)).add([FITS], 480.0)
    assert ProbeCache(tmp_path, identity(trial, 4, "fp16", CARD)).load() == ([FITS], 480.0)

    (tmp_path / "own.py").write_text(OWN_MODEL.replace("3, 8", "3, 9"), encoding="utf-8")

    assert ProbeCache(tmp_path, identity(trial, 4, "fp16", CARD)).load() == ([], None)


SCRIPT = """
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.memory.measure.process import Probe, Request

with Probe(Request(TrialConfig(model="tiny_cnn", image_size=32), 4, 1000.0, "cpu")) as probe:
    print("measured", probe.measure(4).micro_batch)
"""


@pytest.mark.slow
def test_a_script_without_a_main_guard_measures_too_and_is_run_once(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    # The package lies on the script's own search path, as in a checkout that is not installed.
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path('script.py', run_name='__main__')"

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=110)

    assert (done.returncode, done.stdout) == (0, "measured 4\n"), done.stderr


@pytest.mark.slow
def test_the_real_step_is_measured_in_a_process_of_its_own() -> None:
    """With mixing, an average of the weights and clipping: whatever a trial may do."""
    trial = TRIAL.model_copy(
        update={"mixup": 0.2, "cutmix": 1.0, "ema": 0.9, "max_norm": 1.0, "precision": "bf16", "threads": 1}
    )
    with Probe(Request(trial, 4, 1000.0, "cpu")) as probe:
        started = time.perf_counter()
        point = probe.measure(4)
        seconds = time.perf_counter() - started
    assert (point.micro_batch, point.cap_mib, point.peak_reserved_mib, point.reason) == (4, 1000.0, 0.0, "")
    assert point.images_per_s is not None and point.images_per_s > 8 / seconds
    assert probe.context_mib is None


FITS, FAILED = Point(16, 7000.0, 800.0, 900.0, 500.0), Point(256, 7000.0, reason="CUDA out of memory")


def cache_for(folder: Path, **trial: object) -> ProbeCache:
    return ProbeCache(folder, identity(TRIAL.model_copy(update=trial), 22, "fp16", CARD))


def test_points_are_found_again_for_the_same_step_only(tmp_path: Path) -> None:
    cache_for(tmp_path).add([FITS, FAILED], 480.0)
    assert cache_for(tmp_path).load() == ([FITS, FAILED], 480.0)
    assert cache_for(tmp_path, lr=0.5, schedule="cosine", seed=7).load() == ([FITS, FAILED], 480.0)
    for other in (
        {"image_size": 64},
        {"optimizer": "sgd"},
        {"channels_last": False},
        {"model": "resnet18"},
        {"ema": 0.9},
        {"mixup": 0.2},
    ):
        assert cache_for(tmp_path, **other).load() == ([], None)
    other_driver = Card(CARD.name, "581.1", CARD.total_mib, CARD.free_mib)
    for of in (
        identity(TRIAL, 22, "bf16", CARD),
        identity(TRIAL, 22, "fp16", other_driver),
        identity(TRIAL, 5, "fp16", CARD),
    ):
        assert ProbeCache(tmp_path, of).load() == ([], None)


def test_new_points_join_the_old_and_replace_those_of_their_size(tmp_path: Path) -> None:
    cache = cache_for(tmp_path)
    cache.add([FITS, FAILED], 480.0)
    again = Point(16, 3000.0, 700.0, 750.0, 510.0)
    cache.add([again], None)
    assert cache.load() == ([again, FAILED], 480.0)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"of": 1}', "null"])
def test_a_damaged_file_counts_as_none(tmp_path: Path, content: str) -> None:
    cache = cache_for(tmp_path)
    cache.path.parent.mkdir(parents=True)
    cache.path.write_text(content, encoding="utf-8")
    assert cache.load() == ([], None)
    cache.add([FITS], None)
    assert cache.load() == ([FITS], None)


def test_what_ran_out_of_memory_in_a_trial_is_not_proposed_again_at_that_share(tmp_path: Path) -> None:
    cache = cache_for(tmp_path)
    cache.add([FITS, Point(32, 7000.0, 1500.0, 1700.0, 900.0), Point(64, 7000.0, 2900.0, 3300.0, 990.0)], 480.0)
    cache.lower(32, 3500.0, "CUDA out of memory")
    points, _ = cache.load()
    assert points == [
        FITS,
        Point(32, 3500.0, reason="CUDA out of memory"),
        Point(64, 3500.0, reason="CUDA out of memory"),
    ]
    assert usable(points, 3000.0) == points
    assert usable(points, 3600.0) == [FITS]


def test_points_count_under_another_cap_where_they_still_say_something() -> None:
    assert usable([FITS, FAILED], 7000.0) == [FITS, FAILED]
    assert usable([FITS, FAILED], 8000.0) == [FITS]  # 256 may fit there
    assert usable([FITS, FAILED], 850.0) == [FAILED]  # 900 was reserved: whether less does is not known
