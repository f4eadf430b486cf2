"""The plan for a GPU: estimate, measure what the cache does not know, choose."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import torch

from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.config.units import MIB
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.device import Card
from tune_cropshield.errors import EstimateUnavailable
from tune_cropshield.memory.choose.budget import Budget
from tune_cropshield.memory.choose.pairs import PLANNED_SHARE, SMALLEST_FOR_BATCH_NORM, Allowed, Plan
from tune_cropshield.memory.choose.plans import fitting_pairs, plan_from_estimate, plan_from_points
from tune_cropshield.memory.measure.cache import ProbeCache, identity, usable
from tune_cropshield.memory.measure.points import Point, Points, sizes_to_measure
from tune_cropshield.memory.measure.process import Probe, Request, measure_points
from tune_cropshield.memory.predict.estimate import MemoryEstimate, estimate_memory
from tune_cropshield.training.gradients import LARGEST_PART_BYTES
from tune_cropshield.training.model_checks import smallest_micro_batch
from tune_cropshield.training.precision import DTYPES, resolve_precision

CUDA = torch.device("cuda")  # named, not touched
# Below this share of the memory an estimate is safe by far, and the largest micro-batch is the fastest, or within a few
# percent of it: measuring would cost a search half a minute and change nothing.
AMPLE = 0.5


def gpu_precision(trial: TrialConfig) -> Precision:
    """Returns the precision in which `trial` runs on a GPU."""
    return resolve_precision(trial.precision, CUDA)


def estimate_for(trial: TrialConfig, num_classes: int) -> MemoryEstimate:
    """Returns the estimate for `trial` on a GPU, at the largest size of its images.

    Raises:
        EstimateUnavailable: the model cannot be traced, or not with this PyTorch.
    """
    trial, precision = at_largest_size(trial), gpu_precision(trial)
    # The estimate counts an fp32 image; a trial holds the uint8 picture of the store and an image of the precision's
    # type.
    pixels, stored = trial.image_size**2 * 3, Preparation(trial.image_size).store_side ** 2 * 3
    beside = max(stored + pixels * DTYPES[precision].itemsize - pixels * 4, 0)
    estimate = estimate_memory(
        trial.model,
        num_classes,
        trial.image_size,
        precision,
        trial.optimizer,
        trial.channels_last,
        trial.freeze_backbone,
        trial.momentum,
        input_bytes_per_image=beside,
        ema=trial.ema > 0,
        head=trial.head,
        loss=trial.loss,
    )
    if precision == "fp32" or not trial.cuda_graphs:
        return estimate
    # At the end of a backward pass (see training.gradients): sums, the gradients of the half-precision weights, and the
    # part that is cast back.
    gradients_mib = 1.5 * estimate.gradients_mib + LARGEST_PART_BYTES / MIB
    return replace(estimate, least_peak_mib=estimate.fixed_mib + gradients_mib)


def allowed_micro_batches(trial: TrialConfig) -> Allowed:
    """Returns the micro-batches that trials like `trial` may have."""
    return Allowed(trial.mixes, smallest_micro_batch(trial))


def at_largest_size(trial: TrialConfig) -> TrialConfig:
    """Returns `trial` with the largest of its image sizes throughout: the one that must fit."""
    return trial.model_copy(
        update={"image_size": max(trial.image_size, *trial.progressive_sizes.values(), 0), "progressive_sizes": {}}
    )


def plan_for_gpu(
    trial: TrialConfig,
    num_classes: int,
    effective_batches: Iterable[int],
    budget: Budget,
    card: Card,
    cache_dir: Path,
    *,
    num_trials: int = 1,
    only: int | None = None,
    trust_ample_memory: bool = False,
    probe: Callable[[Request], Probe] = Probe,
    measuring: Callable[[int, int], object] = lambda done, total: None,
) -> Plan:
    """Returns the plan for trials like `trial` on `card`: estimated, and measured where need be.

    Points that were measured before come from the cache; the context's size is taken as measured, once it was.

    Args:
        trial: its pair, learning rate, schedule and the like do not matter.
        num_classes: outputs of the network.
        effective_batches: those to plan for.
        budget: memory for all trials on the card together.
        card: the GPU, as its driver describes it.
        cache_dir: where measured points are kept.
        num_trials: how many trials share the card.
        only: this micro-batch alone, whether it fits or not.
        trust_ample_memory: measure nothing where every pair takes less than AMPLE of a trial's share.
        probe: what measures.
        measuring: called with (points done, points in all) before each.

    Raises:
        DeviceError: nothing fits.
        RunFailure: the step cannot run at all.
        ConfigError: there is no such model.
    """
    trial = at_largest_size(trial)
    allowed = allowed_micro_batches(trial)
    batches = sorted(set(effective_batches))
    cache = ProbeCache(cache_dir, identity(trial, num_classes, gpu_precision(trial), card))
    kept, context_mib = cache.load()
    if context_mib is not None:
        budget = replace(budget, context_mib=context_mib)
    share_mib = budget.share_mib(num_trials)
    notes = list(budget.notes)
    try:
        estimate: MemoryEstimate | None = estimate_for(trial, num_classes)
    except EstimateUnavailable as error:
        estimate = None
        notes.append(f"{error}: every figure is measured")
    most = max(candidates(batches, allowed))
    largest = estimate.largest_micro_batch(PLANNED_SHARE * share_mib, 2, most) if estimate is not None else None
    known = usable(kept, share_mib)
    missing = _missing(
        [only] if only is not None else sizes_to_measure(candidates(batches, allowed), largest, allowed), known
    )
    subject = f"{trial.model} at {trial.image_size} px"
    if (
        missing
        and estimate is not None
        and trust_ample_memory
        and estimate.largest_micro_batch(AMPLE * share_mib, 2, most) == most
    ):
        plan = plan_from_estimate(estimate, batches, share_mib, budget.context_mib, allowed, subject, only)
        ample = (
            f"every pair of {subject} takes less than half of the {share_mib:.0f} MiB that each trial may reserve: "
            "estimated, not measured"
        )
        return replace(plan, notes=(*notes, *plan.notes, ample))
    if share_mib > 0:
        with probe(Request(trial, num_classes, share_mib)) as process:  # started by the first point that is measured
            fresh = measure_points(process.measure, missing, measuring)
            if only is None:
                found = [*known, *fresh]
                if missing and all(point.peak_reserved_mib is None for point in found):
                    fresh += measure_points(process.measure, _smaller(batches, allowed, min(missing)), measuring)
                found = [*known, *fresh]
                fresh += measure_points(process.measure, _unconfirmed(found, batches, share_mib, allowed), measuring)
            if fresh:
                cache.add(fresh, process.context_mib)
            if process.context_mib is not None:
                budget = replace(budget, context_mib=process.context_mib)
        known = [*known, *fresh]
        share_mib = budget.share_mib(num_trials)
    plan = plan_from_points(Points(known), estimate, batches, share_mib, budget.context_mib, allowed, subject, only)
    return replace(plan, notes=(*notes, *plan.notes))


def _missing(sizes: Iterable[int], known: Iterable[Point]) -> list[int]:
    """Returns the sizes of which `known` says nothing: neither measured, nor at or above one that did not fit."""
    measured = {point.micro_batch for point in known}
    smallest_failed = min((point.micro_batch for point in known if point.peak_reserved_mib is None), default=None)
    return sorted(size for size in {*sizes} - measured if smallest_failed is None or size < smallest_failed)


def _smaller(effective_batches: Iterable[int], allowed: Allowed, size: int) -> set[int]:
    """Returns the micro-batches below `size`: where nothing fits, also those that are smaller than batch norms like."""
    return {smaller for batch in effective_batches for smaller in allowed.of(batch) if smaller < size}


def _unconfirmed(
    found: Iterable[Point], effective_batches: Iterable[int], share_mib: float, allowed: Allowed
) -> set[int]:
    """Returns the micro-batches that would be taken without having been measured themselves.

    They fit by their neighbours.
    """
    points = Points(found)
    chosen = [
        pairs[0].micro_batch for pairs in fitting_pairs(points, effective_batches, share_mib, allowed).values() if pairs
    ]
    return {size for size in chosen if points.at(size) is None}


def candidates(effective_batches: Iterable[int], allowed: Allowed) -> list[int]:
    """Returns every micro-batch that a pair could have.

    These are the divisors from 16 on, and the smaller ones of batches that have no other.
    """
    sizes: set[int] = set()
    for batch in effective_batches:
        divisors = allowed.of(batch)
        sizes |= {size for size in divisors if size >= min(SMALLEST_FOR_BATCH_NORM, batch)} or set(divisors)
    return sorted(sizes)
