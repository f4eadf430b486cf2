"""Processes that wait for trials, in a real Ray."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tune_cropshield.errors import RunFailure
from tune_cropshield.search.ray_runtime import RayRuntime, ray_runtime
from tune_cropshield.search.warm_up import WarmUp

pytestmark = [pytest.mark.ray, pytest.mark.timeout(200)]


def worker_processes() -> set[int]:
    """Returns Ray's worker processes that wait for work."""
    commands = {int(entry.name): _command(entry) for entry in Path("/proc").iterdir() if entry.name.isdecimal()}
    return {process for process, command in commands.items() if command.startswith("ray::IDLE")}


def _command(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_text()
    except OSError:
        return ""


def test_actors_made_as_ray_tune_makes_them_take_over_processes_that_have_loaded_what_trials_need() -> None:
    others = worker_processes()
    with ray_runtime(2, 0, None, warm_workers=2, warm_up=WarmUp()) as runtime:
        runtime.ready()
        import ray
        from ray.tune.execution.class_cache import _ActorClassCache

        deadline = time.monotonic() + 60
        while len(waiting := worker_processes() - others) < 2:
            assert time.monotonic() < deadline, "no process waits for a trial"
            time.sleep(0.1)

        class Trial:  # here, so that it travels as a whole: Ray's processes do not find the tests
            def process(self) -> tuple[int, bool]:
                return os.getpid(), "tune_cropshield.search.worker" in sys.modules

        trial = _ActorClassCache().get(Trial).options(num_cpus=1)
        found = ray.get([actor.process.remote() for actor in [trial.remote(), trial.remote()]])

    assert {process for process, _ in found} == waiting
    assert [loaded for _, loaded in found] == [True, True]


def test_who_waits_for_the_processes_is_not_held_up_by_a_ray_that_does_not_start() -> None:
    def fail() -> None:
        raise RunFailure("no room")

    runtime = RayRuntime()
    runtime.start(fail, lambda: None)
    runtime.processes_asked()
    with pytest.raises(RunFailure, match="no room"):
        runtime.ready()
    runtime.close()
