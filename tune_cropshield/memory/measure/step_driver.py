"""Runs a training step again and again: warm-up, timing, synchronisation, peak memory and running out of it.

What is run is a step on random pictures: a trial's own (trial_step.py) where a plan is measured, the plain step of a
training script where `doctor` compares.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from tune_cropshield.config.units import MIB
from tune_cropshield.training.gpu_errors import first_line, is_out_of_memory

WARM_UP_WINDOWS = 3  # kernels are loaded and chosen, the optimizer's state is made, the allocator has its segments
TIMED_WINDOWS = 8
FEWEST_ROUNDS, MOST_ROUNDS = 3, 40  # of steps that take turns


class MeasuredStep(Protocol):
    """A training step with pictures of its own, ready to run."""

    @property
    def images_per_window(self) -> int:
        """How many images one update is made from."""

    def window(self) -> None:
        """Makes one optimizer update."""

    def finish(self) -> None:
        """Does what else such a training does that takes memory: it is not timed."""


Step = TypeVar("Step", bound=MeasuredStep)


@dataclass(frozen=True)
class Measurement:
    """A step that fits. Memory is the highest of PyTorch's allocator, 0 on a CPU."""

    peak_allocated_mib: float  # tensors
    peak_reserved_mib: float  # the allocator's segments: what must fit
    images_per_s: float  # of the median window


@dataclass(frozen=True)
class DoesNotFit:
    """A step that runs out of memory."""

    reason: str


def measure_step(
    build: Callable[[], MeasuredStep],
    device: torch.device,
    warm_up: int = WARM_UP_WINDOWS,
    timed: int = TIMED_WINDOWS,
) -> Measurement | DoesNotFit:
    """Returns the peak memory and the speed of a step on `device`; its memory is given back afterwards.

    A step that only keeps within the memory by giving cached memory back all the time does not fit either.

    Args:
        build: makes the step; what that takes counts.
        warm_up: windows that are run before the timed ones.
        timed: windows whose median time gives the speed.
    """
    _give_back(device)
    try:
        if device.type == "cuda":
            torch.cuda.init()  # else a process that has not used the GPU yet has no figures to reset
            torch.cuda.reset_peak_memory_stats(device)
        retries_before = _retries(device)
        step = build()
        seconds = [seconds_of(step.window, device) for _ in range(warm_up + timed)]
        step.finish()
        _wait_for(device)
        if _retries(device) > retries_before:
            return DoesNotFit("the allocator had to give cached memory back to go on")
        allocated, reserved = (
            (torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device))
            if device.type == "cuda"
            else (0, 0)
        )
        speed = step.images_per_window / statistics.median(seconds[warm_up:])
        return Measurement(allocated / MIB, reserved / MIB, speed)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return DoesNotFit(first_line(error))
    finally:
        step = None  # type: ignore[assignment]  # before its memory is given back
        _give_back(device)


def steps_that_fit(builds: Mapping[str, Callable[[], Step]], device: torch.device) -> dict[str, Step]:
    """Returns the steps, by name, that `device` holds side by side: each has made one window."""
    steps = {}
    for name, build in builds.items():
        try:
            step = build()
            step.window()
            steps[name] = step
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        _give_back(device)
    return steps


def take_turns(
    steps: Mapping[str, MeasuredStep], device: torch.device, seconds: float, min_rounds: int = FEWEST_ROUNDS
) -> dict[str, list[float]]:
    """Returns the seconds of each window by the step's name.

    The steps take turns, so that what else the machine does meanwhile falls on all of them alike.

    All make one window outside the clock, then turns until `seconds` are over, at least `min_rounds`. A step whose
    first window takes more than a quarter of `seconds` is not repeated: that window's time is its time (bf16 on a CPU
    without a unit for it).
    """
    times: dict[str, list[float]] = {}
    for name, step in steps.items():
        first = seconds_of(step.window, device)
        if first > seconds / 4:
            times[name] = [first]
    repeated = {name: step for name, step in steps.items() if name not in times}
    started = time.perf_counter()
    for done in range(MOST_ROUNDS if repeated else 0):
        if done >= min_rounds and time.perf_counter() - started > seconds:
            break
        for name, step in repeated.items():
            times.setdefault(name, []).append(seconds_of(step.window, device))
    return times


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Returns how long `work` takes on `device`, which is waited for before and after."""
    _wait_for(device)
    started = time.perf_counter()
    work()
    _wait_for(device)
    return time.perf_counter() - started


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _retries(device: torch.device) -> int:
    """Returns how often the allocator has given cached memory back to make room for a request."""
    return int(torch.cuda.memory_stats(device)["num_alloc_retries"]) if device.type == "cuda" else 0


def _give_back(device: torch.device) -> None:
    gc.collect()  # a trainer's parts refer to each other
    if device.type == "cuda":
        torch.cuda.empty_cache()
