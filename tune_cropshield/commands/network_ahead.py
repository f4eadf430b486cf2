"""What a search on a GPU must know of its network: which images it takes and what memory it needs. Found out by another process while Ray starts."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from tune_cropshield.commands.image_sizes import check_image_sizes
from tune_cropshield.config import TrialConfig
from tune_cropshield.errors import RunFailure, UserError

if TYPE_CHECKING:
    from tune_cropshield.memory.estimate import MemoryEstimate

SIZES, ESTIMATE = "sizes", "estimate"


class NetworkAhead:
    """Answers for the network of `trial` what another process has found out; without one, where it died, and for others it finds out itself."""

    def __init__(self, trial: TrialConfig, num_classes: int | None = None, answers: Connection | None = None) -> None:
        self._trial, self._num_classes, self._answers = trial, num_classes, answers
        self._known: dict[str, object] = {}

    def check_image_sizes(self) -> None:
        """Raises ConfigError when the network cannot take pictures of a size that it would see."""
        if self._answer(SIZES) is None:
            check_image_sizes(self._trial)

    def estimate(self, trial: TrialConfig, num_classes: int) -> MemoryEstimate:
        """Returns what `gpu_plan.estimate_for` would. Raises EstimateUnavailable for a model that cannot be traced."""
        from tune_cropshield.memory.estimate import MemoryEstimate
        from tune_cropshield.memory.gpu_plan import as_planned, estimate_for

        if num_classes == self._num_classes and as_planned(trial) == as_planned(self._trial):
            estimate = self._answer(ESTIMATE)
            if isinstance(estimate, MemoryEstimate):
                return estimate
        return estimate_for(trial, num_classes)

    def _answer(self, question: str) -> object:
        """Returns what the process answers to `question`, or raises the error that it met; None when it does not answer any more."""
        while question not in self._known and self._answers is not None:
            try:
                answered, answer = self._answers.recv()
                self._known[answered] = answer
            except Exception:  # it has died, or what it sent cannot be read
                self._answers = None
        answer = self._known.get(question)
        if isinstance(answer, Exception):
            raise answer
        return answer


@contextmanager
def looked_at_ahead(trial: TrialConfig, num_classes: int | None) -> Iterator[NetworkAhead]:
    """Starts the process, and ends it with the block. num_classes: None where it is not known yet, and nothing is done ahead."""
    if num_classes is None:
        yield NetworkAhead(trial)
        return
    processes = multiprocessing.get_context("spawn")  # a fork would not survive the threads of this process
    ours, theirs = processes.Pipe(duplex=False)
    process = processes.Process(target=find_out, args=(theirs, trial, num_classes), name="network-ahead", daemon=True)
    with _interrupts_ignored():  # it inherits that: Ctrl-C is the search's business
        process.start()
    theirs.close()
    try:
        yield NetworkAhead(trial, num_classes, ours)
    finally:
        ours.close()
        process.kill()
        process.join()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only it may say so
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def find_out(answers: Connection, trial: TrialConfig, num_classes: int) -> None:
    """Runs in that process: sends (question, answer) for each, with what a person should hear of in place of an answer.

    Another failure ends it: whoever asks then meets it too, and can tell it in full.
    """
    with suppress(BrokenPipeError):
        for question, found in ((SIZES, _sizes), (ESTIMATE, _estimate)):
            answer: object
            try:
                answer = found(trial, num_classes)
            except (UserError, RunFailure) as error:
                answer = error
            answers.send((question, answer))


def _sizes(trial: TrialConfig, num_classes: int) -> object:
    check_image_sizes(trial)
    return True


def _estimate(trial: TrialConfig, num_classes: int) -> object:
    from tune_cropshield.memory.gpu_plan import estimate_for

    return estimate_for(trial, num_classes)
