"""The settings that are tried first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tune_cropshield.config.domain import NO_BOUND
from tune_cropshield.config.reference import BASELINE, FIRST_TRIAL, REFERENCE_SETTING, recommended, reference_family
from tune_cropshield.config.searchable import OF_PHOTOGRAPHS
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.config.space import SearchSpace, nearest_in
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.search.knowledge import Knowledge
from tune_cropshield.search.trial_settings import EFFECTIVE_BATCH, PAIR
from tune_cropshield.search.views.view import short

# What the reference leaves off without a word.
UNSAID = ("clip_value", "agc", "early_stopping")


def start_points(space: SearchSpace, plan: Plan, knowledge: Knowledge | None = None) -> list[dict[str, Any]]:
    """Returns the parameters to try first, trial 0 being the reference setting; all but it may be partial.

    Behind it comes what earlier searches know, then what the space names and they have not tried. A search without a
    baseline leaves out the reference setting, and may have nothing to try first.
    """
    knowledge = knowledge or Knowledge()
    named = [dict(start) for start in space.start if not knowledge.has_tried(start)]
    starts: list[dict[str, Any]] = []
    reference = [reference_point(space)] if space.search.baseline else []
    for start in (*reference, *knowledge.starts, *named):
        fitting = with_fitting_pair({**(space.family_of(start) or {}), **start}, space, plan)
        if fitting not in starts:
            starts.append(fitting)
    return starts


def known_trials(
    space: SearchSpace, plan: Plan, knowledge: Knowledge, own_values: Sequence[float]
) -> list[tuple[dict[str, Any], float]]:
    """Returns what earlier searches know for the sampler, as `Knowledge.prior` does, with batches or pairs that fit."""
    return [(with_fitting_pair(setting, space, plan), value) for setting, value in knowledge.prior(space, own_values)]


def reference_point(space: SearchSpace) -> dict[str, Any]:
    """Returns the baseline, or without one the reference setting for this model, in terms of what is searched.

    What it does not speak of takes our default. A value outside the space becomes the nearest one inside:
    see `reference_differs`. Where several networks are searched, it is of the first that has a reference setting.
    """
    family = reference_family(space)
    ours = space.narrowed(family)
    advice = _advice(ours)
    return {**family, **{name: nearest_in(name, domain, advice[name]) for name, domain in ours.space.items()}}


def _advice(space: SearchSpace) -> dict[str, Any]:
    trial = space.trial_config()
    own = {name: getattr(trial, name) for name in TrialConfig.model_fields}
    said = recommended(trial) if space.baseline is None else space.baseline
    return own | {name: getattr(space.data, name) for name in OF_PHOTOGRAPHS} | said


def reference_differs(space: SearchSpace) -> dict[str, tuple[Any, Any]]:
    """Returns {parameter: (the reference's value, trial 0's value)} where these differ.

    They do where the space, or what it fixes, does not hold what the reference recommends: its own values, no other
    clipping than its own, and a training to its end.
    """
    if space.baseline is not None:
        return {}  # the space holds it
    ours, point = space.narrowed(reference_family(space)), reference_point(space)
    trial, advice = ours.trial_config(), _advice(ours)
    names = [*recommended(trial), *(name for name in UNSAID if name in ours.space)]
    taken = {name: point.get(name, getattr(trial, name)) for name in names}
    return {name: (advice[name], taken[name]) for name in names if taken[name] != advice[name]}


def name_of_trial_0(space: SearchSpace) -> str:
    """Returns what trial 0 is called where others are compared with it."""
    if not space.search.baseline:
        return FIRST_TRIAL
    return REFERENCE_SETTING if space.baseline is None else BASELINE


def reference_notes(space: SearchSpace) -> list[str]:
    """Returns a sentence for each parameter in which trial 0 differs from the reference setting it is meant to be."""
    if not space.search.baseline:
        return []
    return [_difference(name, advised, taken) for name, (advised, taken) in reference_differs(space).items()]


def _difference(name: str, advised: Any, taken: Any) -> str:
    if advised == NO_BOUND:
        return (
            f"trial 0 has {name} = {short(taken)}, the largest bound in the search space: the reference setting's "
            '"none" (no clipping) is not in it'
        )
    return f"trial 0 has {name} = {short(taken)}: the reference setting's {short(advised)} is not in the search space"


def with_fitting_pair(start: dict[str, Any], space: SearchSpace, plan: Plan) -> dict[str, Any]:
    """Returns `start` with the nearest effective batch that fits, as a pair where pairs are searched."""
    batch = start.get(EFFECTIVE_BATCH)
    if batch is None:
        return start
    plan = plan.of(start)
    rest = {name: value for name, value in start.items() if name != EFFECTIVE_BATCH}
    fitting = min(plan.effective_batches, key=lambda known: abs(known - batch))
    return (
        {**rest, PAIR: str(plan.best(fitting))} if space.search.pairs == "all" else {**rest, EFFECTIVE_BATCH: fitting}
    )
