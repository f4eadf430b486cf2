"""How many trials at once train the most images per second on one device: measured, and only where it pays."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tune_cropshield.errors import RunFailure
from tune_cropshield.files import write_text_atomically
from tune_cropshield.memory.packed_step import Share, serve
from tune_cropshield.memory.plan import MOST_TOGETHER
from tune_cropshield.memory.probe_cache import FOLDER

SECONDS = 2.0  # of training together, for each number of processes
MUST_GAIN = 1.10  # less is within what a search loses to trials that wait for each other's ends
AS_FAST = 0.97  # fewer processes this close to the fastest are as good: each has more memory
TIMEOUT_S = 180.0  # for a process's imports and its first steps


def best_number(speeds: Mapping[int, float]) -> int:
    """Returns how many trials should run at once: 1 unless more make at least 10 % more images/s together; then as few as are about as fast as any.

    speeds: images/s in all, by the number of trials at once; without an entry for 1 nothing is known, and it is 1.
    """
    if 1 not in speeds:
        return 1
    gains = {number: speed / speeds[1] for number, speed in speeds.items()}
    worth_it = [number for number, gain in gains.items() if gain >= MUST_GAIN and gain >= AS_FAST * max(gains.values())]
    return min(worth_it, default=1)


def speed_together(runs: Sequence[Sequence[tuple[float, int]]]) -> float:
    """Returns the images/s of all `runs` in the time in which all of them ran. runs: (moment, images since the one before), see `packed_step`."""
    began, ended = max(run[0][0] for run in runs), min(run[-1][0] for run in runs)
    if ended <= began:
        return 0.0
    images = 0.0
    for run in runs:
        for (before, _), (moment, num_images) in itertools.pairwise(run):
            overlap = min(moment, ended) - max(before, began)
            images += num_images * overlap / (moment - before) if overlap > 0 else 0.0
    return images / (ended - began)


def measure_packing(share_of: Callable[[int], Share | None], most: int = MOST_TOGETHER, seconds: float = SECONDS) -> dict[int, float]:
    """Returns {trials at once: images/s in all}, for 1, 2, ... up to the first that does not fit or is slower than one less.

    share_of: what each of so many trials runs, None where they do not fit. Raises RunFailure when a process hangs or dies otherwise than of memory.
    """
    speeds: dict[int, float] = {}
    with ExitStack() as stack:
        processes: list[_Process] = []
        for number in range(1, most + 1):
            share = share_of(number)
            if share is None:
                break
            if not processes:
                processes = [stack.enter_context(_Process()) for _ in range(most)]  # all at once: starting is mostly importing
            speed = _measure(processes[:number], share, seconds)
            if speed is None:
                break
            speeds[number] = speed
            if number > 1 and speed < speeds[number - 1]:
                break
    return speeds


def _measure(processes: Sequence[_Process], share: Share, seconds: float) -> float | None:
    for process in processes:
        process.send(share)
    if any(process.receive() != "ready" for process in processes):
        return None
    for process in processes:
        process.send(seconds)
    runs = [process.receive() for process in processes]
    return None if any(run is None for run in runs) else speed_together(runs)


def measure_each(shares: Mapping[str, Share], seconds: float) -> dict[str, float]:
    """Returns the images/s of each of `shares`, one after another in one process; without those that do not fit."""
    with _Process() as process:
        speeds = {name: _measure([process], share, seconds) for name, share in shares.items()}
    return {name: speed for name, speed in speeds.items() if speed is not None}


class _Process:
    """One process that trains on demand. Use in a with block."""

    def __enter__(self) -> _Process:
        processes = multiprocessing.get_context("spawn")
        self._connection, theirs = processes.Pipe()
        self._process = processes.Process(target=serve, args=(theirs,), name="packing", daemon=True)
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()

    def send(self, what: Share | float) -> None:
        self._connection.send(what)

    def receive(self) -> Any:
        try:
            if self._connection.poll(TIMEOUT_S):
                return self._connection.recv()
            raise RunFailure("measuring how many trials share the device well hangs")
        except (EOFError, ConnectionError):
            raise RunFailure("a process that measured how many trials share the device well died") from None


class SpeedCache:
    """Measured speeds of one identity, in a JSON file beside the probe's. A file that cannot be read counts as none."""

    def __init__(self, cache_dir: Path, what: str, of: dict[str, Any]) -> None:
        """what: the kind of measurement, which goes into the file's name."""
        self._of = of
        self.path = cache_dir / FOLDER / f"{what}-{hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]}.json"

    def load(self) -> dict[str, float] | None:
        """Returns {name: images/s}, None where nothing was measured."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            return {name: float(speed) for name, speed in kept["images_per_s"].items()} if kept["of"] == self._of else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, speeds: Mapping[str, float]) -> None:
        """Keeps what was measured."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.path, json.dumps({"of": self._of, "images_per_s": dict(speeds)}, indent=2) + "\n")
