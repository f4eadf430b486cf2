"""What a search on a GPU must know of its network: which images it takes and what memory it needs. Found out by another process while Ray starts."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from tune_cropshield.commands.image_sizes import check_image_sizes
from tune_cropshield.config import TrialConfig

if TYPE_CHECKING:
    from tune_cropshield.memory.estimate import MemoryEstimate


class NetworkAhead:
    """Answers for the network of `trial` what another process has found out; without one, where it died, and for others it finds out itself."""

    def __init__(self, trial: TrialConfig, num_classes: int | None = None, answers: Connection | None = None) -> None:
        self._trial, self._num_classes, self._answers = trial, num_classes, answers
        self._estimate: MemoryEstimate | None = None

    def check_image_sizes(self) -> None:
        """Raises ConfigError when the network cannot take pictures of a size that it would see."""
        answer = self._next()
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            check_image_sizes(self._trial)

    def estimate(self, trial: TrialConfig, num_classes: int) -> MemoryEstimate:
        """Returns what `gpu_plan.estimate_for` would. Raises EstimateUnavailable for a model that cannot be traced."""
        from tune_cropshield.memory.estimate import MemoryEstimate
        from tune_cropshield.memory.gpu_plan import estimate_for, with_gpu_precision

        if num_classes != self._num_classes or with_gpu_precision(trial) != with_gpu_precision(self._trial):
            return estimate_for(trial, num_classes)
        if self._estimate is None:
            answer = self._next()
            if isinstance(answer, Exception):
                raise answer
            self._estimate = answer if isinstance(answer, MemoryEstimate) else estimate_for(trial, num_classes)
        return self._estimate

    def _next(self) -> object:
        """Returns the process's next answer, None when there is none any more."""
        if self._answers is not None:
            with suppress(EOFError, OSError):
                return self._answers.recv()
            self._answers = None
        return None


@contextmanager
def looked_at_ahead(trial: TrialConfig, num_classes: int | None) -> Iterator[NetworkAhead]:
    """Starts the process, and ends it with the block. num_classes: None where it is not known yet, and nothing is done ahead."""
    if num_classes is None:
        yield NetworkAhead(trial)
        return
    processes = multiprocessing.get_context("spawn")  # a fork would not survive the threads of this process
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=find_out, args=(theirs, trial, num_classes), name="network-ahead", daemon=True)
    process.start()
    theirs.close()
    try:
        yield NetworkAhead(trial, num_classes, ours)
    finally:
        ours.close()
        process.kill()
        process.join()


def find_out(answers: Connection, trial: TrialConfig, num_classes: int) -> None:
    """Runs in that process: answers whether the network takes its images, then with its estimate; with the error in place of each that fails."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the search's business
    with suppress(BrokenPipeError):
        for question in (_sizes, _estimate):
            try:
                answer = question(trial, num_classes)
            except Exception as error:
                answer = error
            answers.send(answer)


def _sizes(trial: TrialConfig, num_classes: int) -> object:
    check_image_sizes(trial)
    return True


def _estimate(trial: TrialConfig, num_classes: int) -> object:
    from tune_cropshield.memory.gpu_plan import estimate_for

    return estimate_for(trial, num_classes)
