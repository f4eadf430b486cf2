"""What a search finds out about the GPU before its first trial: precision and layout, trials at once, and the pairs that fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tune_cropshield.commands.paths import cache_dir
from tune_cropshield.search.resources import Resources, divide, num_cores
from tune_cropshield.search.view import SearchView
from tune_cropshield.space import SearchSpace

if TYPE_CHECKING:
    from tune_cropshield.commands.network_ahead import NetworkAhead
    from tune_cropshield.memory.card import Card
    from tune_cropshield.memory.plan import Plan

# Images that a search would train on were no trial pruned. Measuring how to train them fastest takes about half a minute, mostly imports, and can win
# half of the search's time: shorter ones, of about two minutes at some thousand images/s, go by what is known or usual.
MEASURING_PAYS_FROM = 500_000
GUIDES_CLASSES = 22  # a dry run reads no photographs


def with_fastest_kernels(
    space: SearchSpace, card: Card | None, num_classes: int, view: SearchView, worth_measuring: bool, network: NetworkAhead
) -> SearchSpace:
    """Returns `space` with precision "auto" settled, and the layout with it: measured on a GPU, left to the rule of `resolve_precision` on a CPU."""
    trial = space.trial_config()
    decided = trial.precision != "auto" or "precision" in space.space or "channels_last" in {*space.space, *space.trial}
    if card is None or decided:
        return space
    from tune_cropshield.memory.budget import resolve_budget
    from tune_cropshield.memory.gpu_kernels import fastest_kernels
    from tune_cropshield.search.batches import effective_batches, mixes_somewhere

    with view.steps("measuring which precision and layout are fastest"):
        settings, why = fastest_kernels(
            trial,
            num_classes,
            effective_batches(space),
            resolve_budget(space.search.vram, card),
            card,
            cache_dir(),
            even=mixes_somewhere(space),
            worth_measuring=worth_measuring,
            estimator=network.estimate,
        )
    view.note(why)
    return space.model_copy(update={"trial": {**space.trial, **settings}})


def packed(
    space: SearchSpace,
    resources: Resources,
    card: Card | None,
    num_classes: int,
    view: SearchView,
    worth_measuring: bool,
    network: NetworkAhead,
) -> Resources:
    """Returns `resources` with as many trials on each GPU as train the most images per second together, where that was left to us."""
    if card is None or space.search.trials_per_gpu != "auto" or space.search.trials < 2:
        return resources
    from tune_cropshield.memory.budget import resolve_budget
    from tune_cropshield.memory.gpu_packing import trials_together
    from tune_cropshield.search.batches import effective_batches, mixes_somewhere

    budget, cores = resolve_budget(space.search.vram, card), num_cores() // resources.gpus
    with view.steps("measuring how many trials share the GPU best"):
        number, why = trials_together(
            space.trial_config(),
            num_classes,
            effective_batches(space),
            budget,
            card,
            cache_dir(),
            cores=cores,
            even=mixes_somewhere(space),
            worth_measuring=worth_measuring,
            estimator=network.estimate,
        )
    view.note(why)
    return divide(resources.device, number, space.search.trials)


def plan_for(space: SearchSpace, resources: Resources, card: Card | None, num_classes: int | None, view: SearchView, network: NetworkAhead) -> Plan:
    """Returns the pairs that trials may take on this device: measured on a GPU, only estimated there while `num_classes` is not known."""
    from tune_cropshield.memory.plan import plan_for_cpu, plan_from_estimate
    from tune_cropshield.search.batches import effective_batches, mixes_somewhere

    batches, even = effective_batches(space), mixes_somewhere(space)
    if card is None:
        return plan_for_cpu(batches, even)
    from tune_cropshield.memory.budget import resolve_budget
    from tune_cropshield.memory.gpu_plan import plan_for_gpu

    trial = space.trial_config()
    budget = resolve_budget(space.search.vram, card)
    if num_classes is None:
        estimate = network.estimate(trial, GUIDES_CLASSES)
        return plan_from_estimate(estimate, batches, budget.share_mib(resources.trials_per_gpu), budget.context_mib, even, trial.model)
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
            estimator=network.estimate,
        )
    for note in plan.notes:
        view.note(note)
    return plan


def remembered(space: SearchSpace, card: Card | None, num_classes: int, plan: Plan) -> Callable[[int, str], object]:
    """Returns what lowers the measurements kept of this model: the next plan does not propose a micro-batch that ran out of memory."""
    if plan.source != "probe" or card is None:
        return lambda micro_batch, reason: None
    from tune_cropshield.memory.gpu_plan import at_largest_size, gpu_precision
    from tune_cropshield.memory.probe_cache import ProbeCache, identity

    assert plan.share_mib is not None
    trial = at_largest_size(space.trial_config())
    cache, share_mib = ProbeCache(cache_dir(), identity(trial, num_classes, gpu_precision(trial), card)), plan.share_mib
    return lambda micro_batch, reason: cache.lower(micro_batch, share_mib, reason)
