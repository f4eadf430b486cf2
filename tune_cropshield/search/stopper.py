"""When a whole search ends early."""

from __future__ import annotations

import time
from typing import Any

from ray import tune

from tune_cropshield.search.outcomes import FAILED, OUTCOME, REASON

SAME_FAILURES = 3  # the first trials all failing in one way means that the rest would too


class SearchStopper(tune.Stopper):
    """Stops everything at a deadline, on request, or when the first trials all fail in the same way; `reason` then says why."""

    def __init__(self, time_budget_seconds: float | None) -> None:
        self._deadline = time.monotonic() + time_budget_seconds if time_budget_seconds else None
        self.reason: str | None = None
        self.failed = False
        self._endings: list[str | None] = []  # the failure of each trial that has ended, None where it did not fail

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Looks at a result; never stops a single trial."""
        if result.get("done"):
            self._endings.append(result.get(REASON) if result.get(OUTCOME) == FAILED else None)
            first = self._endings[:SAME_FAILURES]
            if len(first) == SAME_FAILURES and first[0] is not None and len(set(first)) == 1:
                self.stop(f"the first {SAME_FAILURES} trials all failed: {first[0]}")
                self.failed = True
        return False

    def stop(self, reason: str) -> None:
        """Asks for the end; the first reason stays."""
        self.reason = self.reason or reason

    def stop_all(self) -> bool:
        """Tells whether the search should end now."""
        if self._deadline is not None and time.monotonic() >= self._deadline:
            self.stop("the time budget is used up")
        return self.reason is not None
