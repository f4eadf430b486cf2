"""Times several things turn by turn, so that what else the machine does meanwhile falls on all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

FEWEST_ROUNDS, MOST_ROUNDS = 3, 40


def take_turns(
    things: Mapping[str, Callable[[], object]], device: torch.device, seconds: float, min_rounds: int = FEWEST_ROUNDS
) -> dict[str, list[float]]:
    """Returns name -> seconds of each run. All run once outside the clock, then in turns until `seconds` are over, at
    least `min_rounds` times.

    What takes more than a quarter of `seconds` in its warm-up is not repeated: that one run is its time (bf16 on a CPU
    without a unit for it).
    """
    times: dict[str, list[float]] = {}
    for name, thing in things.items():
        first = seconds_of(thing, device)
        if first > seconds / 4:
            times[name] = [first]
    repeated = {name: thing for name, thing in things.items() if name not in times}
    started = time.perf_counter()
    for done in range(MOST_ROUNDS if repeated else 0):
        if done >= min_rounds and time.perf_counter() - started > seconds:
            break
        for name, thing in repeated.items():
            times.setdefault(name, []).append(seconds_of(thing, device))
    return times


def seconds_of(thing: Callable[[], object], device: torch.device) -> float:
    """Returns how long `thing` takes on `device`, which is waited for before and after."""
    synchronize(device)
    started = time.perf_counter()
    thing()
    synchronize(device)
    return time.perf_counter() - started


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(times: dict[str, list[float]], slow: str, fast: str) -> float | None:
    """Returns how many times as long `slow` takes as `fast`: the median over rounds; None where one of them was not
    timed.
    """
    if not (times.get(slow) and times.get(fast)):
        return None
    if len(times[slow]) != len(times[fast]):  # one was too slow to repeat
        return statistics.median(times[slow]) / statistics.median(times[fast])
    return statistics.median(first / second for first, second in zip(times[slow], times[fast], strict=True))
