"""The precision and memory layout in which a model trains fastest on a GPU: what the cache knows, or else a short measurement."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tune_cropshield.config import TrialConfig
from tune_cropshield.errors import RunFailure
from tune_cropshield.memory.budget import Budget
from tune_cropshield.memory.card import Card
from tune_cropshield.memory.estimate import EstimateUnavailable
from tune_cropshield.memory.gpu_plan import Estimator, at_largest_size, estimate_for
from tune_cropshield.memory.packed_step import Share
from tune_cropshield.memory.packing import SpeedCache, measure_each
from tune_cropshield.memory.plan import PLANNED_SHARE
from tune_cropshield.memory.probe_cache import identity

# The first stays unless another is faster by more than noise: fp16 has 8 times bf16's resolution, and its gradients are guarded by the scaler.
VARIANTS: dict[str, dict[str, Any]] = {
    "fp16 channels_last": {"precision": "fp16", "channels_last": True},
    "bf16 channels_last": {"precision": "bf16", "channels_last": True},
    "fp16 contiguous": {"precision": "fp16", "channels_last": False},
}
USUAL = next(iter(VARIANTS))
MUST_GAIN = 1.03
SECONDS = 1.0  # of training in each
LARGEST_BATCH = 64  # the order of the variants no longer changes above


def fastest_kernels(
    trial: TrialConfig,
    num_classes: int,
    effective_batches: Iterable[int],
    budget: Budget,
    card: Card,
    cache_dir: Path,
    *,
    even: bool,
    worth_measuring: bool,
    estimator: Estimator = estimate_for,
) -> tuple[dict[str, Any], str]:
    """Returns the settings `precision` and `channels_last` with which trials like `trial` train fastest on `card`, and why, in a sentence.

    fp32 is not tried: tensor cores leave it behind by a factor. Where nothing can be measured, or the cache knows nothing and it is not
    `worth_measuring`, it is the usual pair.
    """
    trial, batches = at_largest_size(trial), sorted(set(effective_batches))
    wanted = min(batches[len(batches) // 2], LARGEST_BATCH)
    batch = wanted - wanted % 2 if even else wanted
    cache = SpeedCache(cache_dir, "kernels", {**identity(trial, num_classes, "auto", card), "batch": batch})
    speeds = cache.load()
    if speeds is None and not worth_measuring:
        return VARIANTS[USUAL], f"trained in {USUAL}: so short a search would not repay measuring others"
    if speeds is None:
        try:
            batch = _that_fits(trial, num_classes, batch, budget, estimator)
            settings = {"effective_batch": batch, "micro_batch": batch, "accumulation": 1, "pretrained": False, "epochs": 1}
            shares = {
                name: Share(trial.model_copy(update={**settings, **variant}), num_classes, budget.share_mib()) for name, variant in VARIANTS.items()
            }
            speeds = measure_each(shares, SECONDS)
        except RunFailure as error:
            return VARIANTS[USUAL], f"trained in {USUAL}: {error}"
        cache.save(speeds)
    best = fastest_variant(speeds)
    figures = ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
    return VARIANTS[best], f"trained in {best} (images/s measured: {figures})" if speeds else f"trained in {best}"


def fastest_variant(speeds: Mapping[str, float]) -> str:
    """Returns the usual variant, or the fastest one where that gains at least 3 %."""
    if not speeds:
        return USUAL
    fastest = max(speeds, key=lambda name: speeds[name])
    return fastest if speeds[fastest] >= MUST_GAIN * speeds.get(USUAL, 0.0) else USUAL


def _that_fits(trial: TrialConfig, num_classes: int, batch: int, budget: Budget, estimator: Estimator) -> int:
    """Returns `batch`, or the half, quarter, ... of it that the estimate allows, at least 2."""
    try:
        largest = estimator(trial, num_classes).largest_micro_batch(PLANNED_SHARE * budget.share_mib(), 1)
    except EstimateUnavailable:  # a model that cannot be traced: what does not fit is left out of the measurement
        return batch
    while batch > 2 and batch > largest:
        batch //= 2
    return batch
