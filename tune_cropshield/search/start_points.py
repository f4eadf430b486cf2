"""The settings that are tried first."""

from __future__ import annotations

from typing import Any

from tune_cropshield.config.reference import recommended
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.search.trial_settings import EFFECTIVE_BATCH, PAIR


def start_points(space: SearchSpace, plan: Plan) -> list[dict[str, Any]]:
    """Returns the parameters to try first, trial 0 being the reference setting; all but it may be partial."""
    reference = reference_point(space)
    starts = [reference, *(dict(start) for start in space.start if dict(start) != reference)]
    return [_with_fitting_pair(start, space, plan) for start in starts]


def reference_point(space: SearchSpace) -> dict[str, Any]:
    """Returns the reference setting for this model in terms of what is searched.

    What the reference does not speak of takes our default. A value outside the space becomes the nearest one inside:
    see `reference_differs`.
    """
    trial = space.trial_config()
    advice = {name: getattr(trial, name) for name in TrialConfig.model_fields} | recommended(trial)
    return {name: domain.nearest(advice[name]) for name, domain in space.space.items()}


def reference_differs(space: SearchSpace) -> dict[str, tuple[Any, Any]]:
    """Returns {parameter: (the reference's value, trial 0's value)} where these differ.

    They do where the space, or what it fixes, does not hold what the reference recommends.
    """
    trial, point = space.trial_config(), reference_point(space)
    taken = {name: point.get(name, getattr(trial, name)) for name in recommended(trial)}
    return {name: (value, taken[name]) for name, value in recommended(trial).items() if taken[name] != value}


def _with_fitting_pair(start: dict[str, Any], space: SearchSpace, plan: Plan) -> dict[str, Any]:
    """Returns `start` with the nearest effective batch that fits, as a pair where pairs are searched."""
    batch = start.get(EFFECTIVE_BATCH)
    if batch is None:
        return start
    rest = {name: value for name, value in start.items() if name != EFFECTIVE_BATCH}
    fitting = min(plan.effective_batches, key=lambda known: abs(known - batch))
    return (
        {**rest, PAIR: str(plan.best(fitting))} if space.search.pairs == "all" else {**rest, EFFECTIVE_BATCH: fitting}
    )
