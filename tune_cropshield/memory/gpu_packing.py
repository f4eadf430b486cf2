"""How many trials share a GPU: what the cache knows, or else a measurement at the pairs that each would have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tune_cropshield.config import TrialConfig
from tune_cropshield.errors import DeviceError, RunFailure
from tune_cropshield.memory.budget import Budget
from tune_cropshield.memory.card import Card
from tune_cropshield.memory.gpu_plan import Estimator, at_largest_size, estimate_for, gpu_precision, plan_for_gpu
from tune_cropshield.memory.packed_step import Share
from tune_cropshield.memory.packing import SpeedCache, best_number, measure_packing
from tune_cropshield.memory.plan import MOST_TOGETHER
from tune_cropshield.memory.probe_cache import identity

SAME_BUDGET_MIB = 1024.0  # what is free on a card changes a little all the time: within this it is the same measurement


def trials_together(
    trial: TrialConfig,
    num_classes: int,
    effective_batches: Iterable[int],
    budget: Budget,
    card: Card,
    cache_dir: Path,
    *,
    cores: int,
    even: bool,
    worth_measuring: bool,
    estimator: Estimator = estimate_for,
) -> tuple[int, str]:
    """Returns how many trials like `trial` should run at once on `card` within `budget`, and why, in a sentence.

    Each number is measured at the middle one of `effective_batches`, with the pair and the share of memory that its trials would have, each in a
    process of its own. cores: of the machine, divided among them. worth_measuring: else it is 1 where the cache knows nothing.
    """
    trial, batches = at_largest_size(trial), sorted(set(effective_batches))
    of = identity(trial, num_classes, gpu_precision(trial), card)
    cache = SpeedCache(cache_dir, "packing", {**of, "batches": batches, "budget": round(budget.total_mib / SAME_BUDGET_MIB), "cores": cores})

    def share_of(number: int) -> Share | None:
        try:
            plan = plan_for_gpu(
                trial, num_classes, batches, budget, card, cache_dir, num_trials=number, even=even, trust_ample_memory=True, estimator=estimator
            )
        except DeviceError:
            return None
        fitting = plan.effective_batches
        pair = plan.best(fitting[len(fitting) // 2])
        settings = {
            "effective_batch": pair.effective_batch,
            "micro_batch": pair.micro_batch,
            "accumulation": pair.accumulation,
            "pretrained": False,
            "epochs": 1,
            "threads": max(cores // number, 1),
        }
        return Share(trial.model_copy(update=settings), num_classes, plan.share_mib)

    kept = cache.load()
    speeds = {int(number): speed for number, speed in kept.items()} if kept is not None else None
    if speeds is None and not worth_measuring:
        return 1, "one trial at a time on the GPU: so short a search would not repay measuring whether more together are faster"
    if speeds is None:
        try:
            speeds = measure_packing(share_of, MOST_TOGETHER)
        except RunFailure as error:
            return 1, f"one trial at a time on the GPU: {error}"
        cache.save({str(number): speed for number, speed in speeds.items()})
    number = best_number(speeds)
    return number, told(number, speeds)


def told(number: int, speeds: Mapping[int, float]) -> str:
    """Returns what was measured, and what follows, in a sentence."""
    if len(speeds) < 2:
        return "one trial at a time on the GPU: two do not fit its budget"
    alone, others = speeds[1], {count: speed for count, speed in speeds.items() if count > 1}
    best = number if number > 1 else max(others, key=lambda count: others[count])
    compared = f"{best} together make {others[best]:.0f} images/s, one alone {alone:.0f} ({others[best] / alone:.2f} x)"
    return f"{number} trials share the GPU: {compared}" if number > 1 else f"one trial at a time on the GPU: {compared}"
