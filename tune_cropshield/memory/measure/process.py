"""Measures a trial's step on the GPU, in a process of its own under an allocator cap.

Nothing of it stays behind, whatever goes wrong.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.errors import RunFailure
from tune_cropshield.memory.measure.points import Point

TIMEOUT_S = 300.0  # for one answer; the process is ready after 10 to 20 s, a point takes about one
LAST_LINES = 20  # of what a process said before it died
# -P: the folder that the program was started in is not a place to look for modules, unless it is one for us.
CHILD = ("-P", "-m", "tune_cropshield.memory.measure.child")


@dataclass(frozen=True)
class Request:
    """What a process is asked to measure: `trial` at several micro-batches, its allocator held to `share_mib`."""

    trial: TrialConfig
    num_classes: int
    share_mib: float
    device: str = "cuda:0"  # as torch spells it


class Probe:
    """Measures points one by one; a process that dies is replaced, and its point counts as one that does not fit.

    Use in a with block.

    context_mib: what a process takes beside its allocator; None until a point was measured, or where NVML is missing.
    """

    def __init__(self, request: Request, program: Sequence[str] = CHILD, timeout_s: float = TIMEOUT_S) -> None:
        """program: the arguments with which Python becomes the process that measures (child.py says how it answers)."""
        self.context_mib: float | None = None
        self._request, self._program, self._timeout_s = request, program, timeout_s
        self._process: _Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def measure(self, micro_batch: int) -> Point:
        """Returns the point at `micro_batch`.

        Raises:
            RunFailure: the step fails for another reason than memory, hangs, or its process does not start.
        """
        if self._process is None:
            self._start()
        answer = self._ask({"micro_batch": micro_batch}, f"hangs at micro-batch {micro_batch}")
        if answer is None:
            exit_code, _ = self._end(dead=True)
            return Point(micro_batch, self._request.share_mib, reason=f"the process died (exit code {exit_code})")
        if "failure" in answer:
            self._end()
            if answer["dead"]:
                return Point(micro_batch, self._request.share_mib, reason=answer["failure"])
            raise self._failed(f"failed at micro-batch {micro_batch}:\n{answer['failure']}")
        self.context_mib = self.context_mib or answer["context_mib"]
        return Point(**answer["point"])

    def _start(self) -> None:
        request = self._request
        self._process = _Process(self._program)
        what = {
            "trial": request.trial.model_dump(mode="json"),
            "num_classes": request.num_classes,
            "share_mib": request.share_mib,
            "device": request.device,
        }
        if self._ask(what, "does not start") is None:
            exit_code, said = self._end(dead=True)
            raise self._failed(f"could not start (exit code {exit_code}):\n{said}")

    def _ask(self, message: dict[str, Any], hangs: str) -> dict[str, Any] | None:
        """Returns the answer to `message`, None where the process has died; `hangs` says what it is if none comes."""
        assert self._process is not None
        try:
            return self._process.ask(message, self._timeout_s)
        except TimeoutError:
            self._end()
            raise self._failed(hangs) from None

    def _failed(self, how: str) -> RunFailure:
        return RunFailure(f"the memory measurement of {self._request.trial.model} {how}")

    def _end(self, dead: bool = False) -> tuple[int, str]:
        """Ends the process, if there is one, and returns its exit code and its last lines."""
        process, self._process = self._process, None
        return process.end(dead) if process is not None else (0, "")


class _Process:
    """A Python process that answers lines of JSON. Its standard error is kept aside, for when it dies."""

    def __init__(self, program: Sequence[str]) -> None:
        # Modules are found where they are found here: in a checkout that is not installed, and a user's own too.
        search_path = os.pathsep.join(os.path.abspath(place) for place in sys.path)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `end`
        self._process = subprocess.Popen(
            [sys.executable, *program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PYTHONPATH": search_path},
            text=True,
            encoding="utf-8",
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._input = self._process.stdin
        self._answers: queue.Queue[str | None] = queue.Queue()
        # A thread, because a pipe cannot be read with a timeout on every system.
        self._reader = threading.Thread(
            target=_read, args=(self._process.stdout, self._answers), name="memory-probe", daemon=True
        )
        self._reader.start()

    def ask(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        """Returns the answer to `message`, None where the process has died. Raises TimeoutError where none comes."""
        with suppress(OSError):  # it has died: its output has ended too
            self._input.write(json.dumps(message) + "\n")
            self._input.flush()
        try:
            line = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        return None if line is None else json.loads(line)

    def end(self, dead: bool) -> tuple[int, str]:
        """Ends the process; returns its exit code and its last lines. dead: it has ended, or is about to, by itself."""
        if dead:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=10)
        self._process.kill()
        exit_code = self._process.wait()
        self._reader.join()
        with suppress(OSError):
            self._input.close()
        with self._said as said:
            said.seek(0)
            lines = said.read().decode("utf-8", errors="replace").splitlines()
        return exit_code, "\n".join(lines[-LAST_LINES:])


def _read(output: IO[str], answers: queue.Queue[str | None]) -> None:
    """Puts each line of `output` into `answers`, and None at its end."""
    with output:
        for line in output:
            answers.put(line)
    answers.put(None)


def measure_points(
    measure: Callable[[int], Point],
    sizes: Collection[int],
    measuring: Callable[[int, int], object] = lambda done, total: None,
) -> list[Point]:
    """Returns the points at `sizes`, smallest first, up to the first that does not fit: larger ones would not either.

    measuring: called with (points done, points in all) before each.
    """
    points: list[Point] = []
    for size in sorted(sizes):
        measuring(len(points), len(sizes))
        points.append(measure(size))
        if points[-1].peak_reserved_mib is None:
            break
    return points
