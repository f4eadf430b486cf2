"""What a search finds out about the GPU before its first trial: the pairs that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.reference import REFERENCE_CLASSES
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.search.resources import Resources
from tune_cropshield.search.views.view import SearchView

if TYPE_CHECKING:
    from tune_cropshield.device import Card
    from tune_cropshield.memory.choose.pairs import Plan


def plan_for(
    space: SearchSpace, resources: Resources, card: Card | None, num_classes: int | None, view: SearchView
) -> Plan:
    """Returns the pairs that trials may take on this device: measured on a GPU, only estimated there while
    `num_classes` is not known.
    """
    from tune_cropshield.memory.choose.pairs import plan_for_cpu
    from tune_cropshield.search.trial_settings import effective_batches, mixes_somewhere

    batches, even = effective_batches(space), mixes_somewhere(space)
    if card is None:
        return plan_for_cpu(batches, even)
    from tune_cropshield.memory.choose.budget import resolve_budget
    from tune_cropshield.memory.choose.for_gpu import estimate_for, plan_for_gpu
    from tune_cropshield.memory.choose.plans import plan_from_estimate

    trial = space.trial_config()
    budget = resolve_budget(space.search.vram, card)
    if num_classes is None:
        estimate = estimate_for(trial, REFERENCE_CLASSES)  # a dry run reads no photographs
        return plan_from_estimate(
            estimate, batches, budget.share_mib(resources.trials_per_gpu), budget.context_mib, even, trial.model
        )
    with view.steps("measuring which batches fit the GPU") as measuring:
        plan = plan_for_gpu(
            trial,
            num_classes,
            batches,
            budget,
            card,
            cache_dir(),
            num_trials=resources.trials_per_gpu,
            even=even,
            trust_ample_memory=True,
            measuring=measuring,
        )
    for note in plan.notes:
        view.note(note)
    return plan


def remembered(space: SearchSpace, card: Card | None, num_classes: int, plan: Plan) -> Callable[[int, str], object]:
    """Returns what lowers the measurements kept of this model: the next plan does not propose a micro-batch that ran
    out of memory.
    """
    if plan.source != "probe" or card is None:
        return lambda micro_batch, reason: None
    from tune_cropshield.memory.choose.for_gpu import at_largest_size, gpu_precision
    from tune_cropshield.memory.measure.cache import ProbeCache, identity

    assert plan.share_mib is not None
    trial = at_largest_size(space.trial_config())
    cache, share_mib = ProbeCache(cache_dir(), identity(trial, num_classes, gpu_precision(trial), card)), plan.share_mib
    return lambda micro_batch, reason: cache.lower(micro_batch, share_mib, reason)
