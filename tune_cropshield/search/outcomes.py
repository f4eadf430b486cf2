"""How a trial can end, and under which names that is kept."""

from __future__ import annotations

import math
from typing import Any

METRIC = "best_val_acc"  # best so far, so that pruning, the sampler and the kept weights agree
OUTCOME = "outcome"  # user attribute of a trial that has ended: one of the values below
REASON = "reason"  # user attribute: a sentence, for outcomes other than finished and pruned
FINISHED, PRUNED, DIVERGED, OUT_OF_MEMORY, FAILED = "finished", "pruned", "diverged", "out of memory", "failed"
WORKER_DIED = "its worker process died"
NO_ACCURACY = "it reported no accuracy"
RETIRED = "worker retired"  # in a trial's events: the process that was to train it still held memory of the one before
LADDER_STEPS = "ladder_steps"  # in a result: how often memory ran out and the trial went on with smaller micro-batches
NOTES = "notes"  # in a result: sentences about what else happened to the trial, each in every result after it
DISK_FULL = "disk_full"  # in a result: a sentence; the trial has not ended, but its search has


def told_outcome(result: dict[str, Any]) -> tuple[str | None, str | None]:
    """Returns the outcome that a trial's last result tells, None where it tells none, and the reason. To finish without an accuracy is to fail."""
    if result.get(OUTCOME) == FINISHED and not has_metric(result):
        return FAILED, NO_ACCURACY
    return result.get(OUTCOME), result.get(REASON)


def has_metric(result: dict[str, Any]) -> bool:
    """Tells whether a result holds an accuracy: None and NaN are none."""
    value = result.get(METRIC)
    return isinstance(value, (int, float)) and math.isfinite(value)
