"""When a whole search ends early."""

from __future__ import annotations

import time

from tune_cropshield.errors import DiskFull

BUDGET_USED_UP = "the time budget is used up"
SAME_FAILURES = 3  # the first trials all failing in one way means that the rest would too


class EarlyEnd:
    """Ends a search at a deadline, on request, on a full disk, or when the first trials all fail in the same way.

    Attributes:
        reason: why the search should end now, a sentence; None while it should not.
        enough: why no new trial should begin, a sentence; those that have begun come to their end. None while it may.
        interrupted: it was asked for from outside, by Ctrl-C, a signal or the command `stop`.
        failed: the search is of no use.
        disk_full: set where nothing can be written any more.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.enough: str | None = None
        self.interrupted = False
        self.failed = False
        self.disk_full: DiskFull | None = None
        self._deadline: float | None = None
        self._worker_began = False  # in this run of the search
        self._deaths: list[str] = []  # of workers that had not begun
        self._endings: list[str | None] = []  # the failure of each trial that has ended, None where it did not fail

    def end_at(self, deadline: float) -> None:
        """Sets when the search ends at the latest, by time.monotonic."""
        self._deadline = deadline

    def trial_ended(self, failure: str | None) -> None:
        """Takes in why a trial failed, None where it did not."""
        self._endings.append(failure)
        first = self._endings[:SAME_FAILURES]
        if len(first) == SAME_FAILURES and first[0] is not None and len(set(first)) == 1:
            self.fail(f"the first {SAME_FAILURES} trials all failed: {first[0]}")

    def worker_began(self) -> None:
        """Takes in that some worker has trained an epoch: those that die are not all alike."""
        self._worker_began = True

    def worker_died(self, reason: str) -> None:
        """Takes in why a worker died. Two in the same way before any has begun mean that none will."""
        if not self._worker_began and reason in self._deaths:
            self.fail(f"no trial can begin: {reason}")
        self._deaths.append(reason)

    def stop(self, reason: str) -> None:
        """Asks for the end; the first reason stays."""
        self.reason = self.reason or reason

    def interrupt(self, reason: str = "interrupted") -> None:
        """Takes in that somebody wants the search to end."""
        self.interrupted = True
        self.stop(reason)

    def fail(self, reason: str) -> None:
        """Asks for the end of a search that is of no use."""
        self.stop(reason)
        self.failed = True

    def stop_for_space(self, error: DiskFull) -> None:
        """Asks for the end because nothing more can be written."""
        self.stop(str(error))
        self.disk_full = self.disk_full or error

    def is_due(self) -> bool:
        """Tells whether the search should end now."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.stop(BUDGET_USED_UP)
        return self.reason is not None
