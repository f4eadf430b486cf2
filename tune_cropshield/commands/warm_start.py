"""What the processes that wait for a search's first trials do meanwhile."""

from __future__ import annotations

from collections.abc import Sequence

from tune_cropshield.memory.plan import SMALLEST_FOR_BATCH_NORM
from tune_cropshield.model_names import OWN_MODELS
from tune_cropshield.named_budgets import parse_budget
from tune_cropshield.search.batches import EFFECTIVE_BATCH, mixes_somewhere
from tune_cropshield.search.resources import most_at_once
from tune_cropshield.search.starts import guide_point
from tune_cropshield.search.warm_up import WarmUp
from tune_cropshield.space import SearchSpace

# On a smaller card memory is measured, and that is to find nothing else lying on it.
ROOMY_MIB = 16_000.0  # for each process


def warm_start(space: SearchSpace, free_mib: Sequence[float], num_images: int | None, pays_from: int) -> tuple[int, WarmUp]:
    """Returns how many processes are to wait for trials, and what they do before.

    free_mib: of each GPU to search on, none for a CPU. num_images: in all; None where they are still to be drawn.
    In a short search on a roomy GPU each runs a step of the trials to come; in one of at least `pays_from` images to train on, how they will train is
    measured first, and nothing may disturb that.
    """
    settings, trial = space.search, space.trial_config()
    modules = () if trial.model in OWN_MODELS else ("torchvision.models",)
    workers = most_at_once(len(free_mib), settings.trials_per_gpu, settings.trials)
    if len(free_mib) != 1 or num_images is None or settings.trials * settings.epochs * num_images >= pays_from:
        return workers, WarmUp(modules)
    if settings.trials_per_gpu == "auto":
        workers = 1  # so short a search measures nothing, and trains one trial at a time
    # On so roomy a card trials take their batches whole. The first to come is trial 0.
    micro_batch = int(guide_point(space).get(EFFECTIVE_BATCH, trial.effective_batch))
    budget = parse_budget(settings.vram)
    room_mib = free_mib[0] if budget is None else min(free_mib[0], budget.ours_mib)
    fits = room_mib / workers >= ROOMY_MIB and micro_batch >= SMALLEST_FOR_BATCH_NORM and not (mixes_somewhere(space) and micro_batch % 2)
    if not fits or settings.pairs == "all":
        return workers, WarmUp(modules)
    pair = {"effective_batch": micro_batch, "micro_batch": micro_batch, "accumulation": 1, "pretrained": False, "progressive_sizes": {}}
    return workers, WarmUp(modules, trial.model_copy(update=pair))
