"""What runs a step again and again, on steps whose work is known."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from tune_cropshield.memory.measure.step_driver import DoesNotFit, Measurement, measure_step, steps_that_fit, take_turns

CPU = torch.device("cpu")


class Known:
    """A step of 10 images that does `work` in each window."""

    images_per_window = 10

    def __init__(self, work: Callable[[], object]) -> None:
        self.work, self.done = work, list[str]()

    def window(self) -> None:
        self.done.append("window")
        self.work()

    def finish(self) -> None:
        self.done.append("finish")


def out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSome advice")


@pytest.mark.slow
def test_the_speed_is_that_of_the_median_window_after_the_warm_up() -> None:
    pauses = iter([0.3, 0.02, 0.2, 0.02])
    step = Known(lambda: time.sleep(next(pauses)))

    found = measure_step(lambda: step, CPU, warm_up=1, timed=3)

    assert isinstance(found, Measurement)
    assert 250 < found.images_per_s <= 500
    assert (found.peak_allocated_mib, found.peak_reserved_mib) == (0.0, 0.0)
    assert step.done == ["window"] * 4 + ["finish"]


def test_a_step_that_runs_out_of_memory_does_not_fit_and_says_how_that_showed() -> None:
    assert measure_step(lambda: Known(out_of_memory), CPU) == DoesNotFit(
        "CUDA out of memory. Tried to allocate 2.00 GiB."
    )


def test_a_fault_of_the_step_is_not_taken_for_memory() -> None:
    with pytest.raises(ZeroDivisionError):
        measure_step(lambda: Known(lambda: 1 // 0), CPU)


def test_of_several_steps_those_that_fit_are_kept() -> None:
    fitting = Known(lambda: None)

    assert steps_that_fit({"small": lambda: fitting, "large": lambda: Known(out_of_memory)}, CPU) == {"small": fitting}
    assert fitting.done == ["window"]


def test_steps_take_turns_after_a_warm_up() -> None:
    order: list[str] = []
    steps = {"a": Known(lambda: order.append("a")), "b": Known(lambda: order.append("b"))}

    times = take_turns(steps, CPU, seconds=20)

    # A warm-up and the most rounds, which these are done with long before the time is up.
    assert "".join(order) == "ab" * 41
    assert {name: len(runs) for name, runs in times.items()} == {"a": 40, "b": 40}


def test_a_step_that_is_far_too_slow_is_run_once() -> None:
    slow = Known(lambda: time.sleep(0.3))

    times = take_turns({"slow": slow, "fast": Known(lambda: None)}, CPU, seconds=0.8)

    assert len(slow.done) == len(times["slow"]) == 1
    assert len(times["fast"]) >= 3
