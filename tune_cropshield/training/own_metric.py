"""A user's own metric: score(labels, probabilities) -> a number, of all validation photographs after each epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tune_cropshield.config.goals import HIGHER_IS_BETTER, METRIC
from tune_cropshield.config.registry import is_own, own_code, resolve
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.metrics import METRIC_NAMES
from tune_cropshield.training.run_folder import PART, PART_ENDED

# Names in a line of metrics, and in what a trial of a search reports.
TAKEN = (
    *(*METRIC_NAMES, METRIC, HIGHER_IS_BETTER, PART, PART_ENDED),
    *("best_value", "best_val_acc", "best_epoch", "done", "outcome", "reason", "notes", "memory_retries", "disk_full"),
    *("config", "date", "hostname", "node_ip", "pid", "timestamp", "trial_id", "training_iteration"),  # Ray's own
)


def own_value(metric: str, labels_N: Tensor, probabilities_NK: Tensor) -> float:
    """Returns the value of a user's own metric; NaN where `metric` is one of ours, which are known already.

    NaN too where the function has no value for these predictions, NaN or infinite: such an epoch is never the best.

    The function gets NumPy arrays: int64 (N,), and fp32 (N, K) whose rows add up to 1.

    Raises ConfigError where the function cannot be loaded, raises, or returns anything but a number.
    """
    if not is_own(metric):
        return math.nan
    score = resolve("metric", metric)
    with own_code("metric", metric):
        value = score(labels_N.numpy().copy(), probabilities_NK.numpy().copy())  # it may change them
    number = _as_number(value)
    if number is None:
        raise _no_finite_number(metric, value)
    return number if math.isfinite(number) else math.nan


def _as_number(value: Any) -> float | None:
    """Returns a number, also NumPy's or PyTorch's, as a float; None for everything else."""
    try:
        return None if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def _no_finite_number(metric: str, value: object) -> ConfigError:
    return ConfigError([f"metric {metric!r} must return a finite number, but returned {value!r}"])


def check_own_metric(metric: str, labels: Sequence[int], num_classes: int) -> None:
    """Raises ConfigError where a user's own metric cannot judge networks; says nothing of ours.

    It is tried on the validation photographs' labels with drawn probabilities.
    """
    if not is_own(metric):
        return
    name = metric.rpartition(":")[2]
    if name in TAKEN:
        raise ConfigError([f"metric {metric!r}: {name} means something else already; give the function another name"])
    generator = torch.Generator().manual_seed(0)
    probabilities_NK = torch.rand(len(labels), num_classes, generator=generator).softmax(dim=1)
    value = own_value(metric, torch.tensor(labels, dtype=torch.int64), probabilities_NK)
    if math.isnan(value):
        raise _no_finite_number(metric, value)
