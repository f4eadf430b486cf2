"""Measures a model's step on the GPU, in a process of its own under an allocator cap: nothing of it stays behind,
whatever goes wrong.
"""

from __future__ import annotations

import multiprocessing
import traceback
from collections.abc import Callable, Collection
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.errors import RunFailure
from tune_cropshield.memory.measure.points import Point

TIMEOUT_S = 300.0  # for one point; a first one takes 10 to 20 s with its imports, a later one about one
PLAUSIBLE_CONTEXT_MIB = (100.0, 2000.0)  # outside, another program took or gave back memory meanwhile


@dataclass(frozen=True)
class Request:
    """What a probe process is asked to measure; device: as torch spells it."""

    trial: TrialConfig
    num_classes: int
    share_mib: float
    device: str = "cuda:0"


@dataclass(frozen=True)
class Failure:
    """Why the process could not go on: `dead` when only its GPU context is at fault and a new process may do better."""

    text: str
    dead: bool


class Probe:
    """Measures points one by one; a process that dies is replaced, and its point counts as one that does not fit. Use
    in a with block.

    context_mib: what a process takes beside its allocator; None until a point was measured, or where NVML is missing.
    """

    def __init__(self, request: Request, run: Callable[[Connection, Request], None] | None = None) -> None:
        """run: the process's main function; `serve` but for tests of processes that die."""
        self.context_mib: float | None = None
        self._request, self._run = request, run or serve
        self._process: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def measure(self, micro_batch: int) -> Point:
        """Returns the point at `micro_batch`. Raises RunFailure when the step fails for another reason than memory, or
        hangs.
        """
        if self._process is None:
            self._start()
        try:
            self._connection.send(micro_batch)
            if not self._connection.poll(TIMEOUT_S):
                self._end()
                raise RunFailure(f"the memory probe of {self._request.trial.model} hangs at micro-batch {micro_batch}")
            answer = self._connection.recv()
        except (EOFError, ConnectionError):
            answer = Failure("the process died", dead=True)
        if isinstance(answer, Failure):
            self._end()
            if not answer.dead:
                raise RunFailure(
                    f"the memory probe of {self._request.trial.model} failed at micro-batch "
                    f"{micro_batch}:\n{answer.text}"
                )
            return Point(micro_batch, self._request.share_mib, reason=answer.text)
        point, context_mib = answer
        self.context_mib = self.context_mib or context_mib
        assert isinstance(point, Point)
        return point

    def _start(self) -> None:
        processes = multiprocessing.get_context("spawn")  # CUDA does not survive a fork, and Windows knows no other way
        self._connection, theirs = processes.Pipe()
        self._process = processes.Process(
            target=self._run, args=(theirs, self._request), name="memory-probe", daemon=True
        )
        self._process.start()
        theirs.close()

    def _end(self) -> None:
        if self._process is not None:
            self._connection.close()
            self._process.terminate()
            self._process.join()
            self._process = None


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


def serve(connection: Connection, request: Request) -> None:
    """Runs in the probe's process: answers each micro-batch with (its point, the context's MiB or None), until the
    connection closes.
    """
    import torch

    from tune_cropshield.config.units import MIB
    from tune_cropshield.device import used_mib
    from tune_cropshield.memory.guard import cap_allocator
    from tune_cropshield.memory.measure.step_driver import measure
    from tune_cropshield.training.gpu_errors import first_line, is_dead_context

    device = torch.device(request.device)
    used_before = used_mib(device.index) if device.type == "cuda" else None
    context_mib = None
    while True:
        try:
            micro_batch = connection.recv()
        except EOFError:
            return
        try:
            cap_allocator(request.share_mib, device)
            point = measure(request.trial, request.num_classes, micro_batch, device, request.share_mib)
            if context_mib is None and used_before is not None:
                taken = (used_mib(device.index) or 0.0) - used_before - torch.cuda.memory_reserved(device) / MIB
                context_mib = taken if PLAUSIBLE_CONTEXT_MIB[0] <= taken <= PLAUSIBLE_CONTEXT_MIB[1] else None
        except Exception as error:
            dead = is_dead_context(error)
            connection.send(Failure(first_line(error) if dead else traceback.format_exc(), dead))
            return
        connection.send((point, context_mib))
