"""`search --dry-run`: what would be searched, without a trial."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.choice import choice_notes, follows_time
from tune_cropshield.api.space import RUNS, known_before, new_space
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.data.sources import check_photographs

if TYPE_CHECKING:  # PyTorch takes seconds to import: a faulty space is told about before
    from tune_cropshield.api.expectation import Expectation
    from tune_cropshield.memory.choose.pairs import Plan
    from tune_cropshield.search.resources import Resources


@dataclass(frozen=True)
class DryRun:
    """What a search would do.

    plan: the pairs that trials may take; on a GPU only estimated. starts: the settings that are tried first. reference:
    sentences on what trial 0 takes instead of the reference setting. notes: sentences on whose ranges these are, where
    none are shipped for the model asked for, and on the earlier searches that are learnt from. expected: what it would
    find in the photographs and take of disk and time; None without photographs.
    """

    space: SearchSpace
    resources: Resources
    plan: Plan
    starts: list[dict[str, Any]]
    reference: list[str]
    notes: list[str]
    expected: Expectation | None


def dry_run(given: dict[str, Any], out: Path | None = None, *, resume: bool = False) -> DryRun:
    """Returns what `search` would do with the arguments `given` (those that are not None), without doing it.

    Raises ConfigError with every fault of the space and the arguments, UserError where nothing fits the memory,
    DataError where the photographs cannot be trained on.
    """
    from tune_cropshield.search.views.view import SearchView

    if resume:
        from tune_cropshield.api.resume import resumed_search

        resumed = resumed_search(out, given, SearchView())
        space = resumed.space
    else:
        space = new_space(given)
    check_photographs(space.data, folds=space.search.folds)  # before anything heavy is imported
    from tune_cropshield.search.earlier import read_knowledge
    from tune_cropshield.search.prepare import check_losses, device_and_card, plan_for
    from tune_cropshield.search.resources import divide
    from tune_cropshield.search.start_points import (
        reference_notes,
        reference_point,
        start_points,
        with_fitting_pair,
    )
    from tune_cropshield.search.trial_settings import most_expensive, pair_of
    from tune_cropshield.training.model_checks import check_network

    for family in space.families:
        ours = space.narrowed(family)
        check_network(most_expensive(ours)[0])
        check_losses(ours)
    device, card = device_and_card(space)
    resources = divide(device, space.search.trials_per_gpu, space.search.trials)
    plan = plan_for(space, resources, card, None, SearchView())
    if resume:
        knowledge, notes = read_knowledge(resumed.folder), [resumed.note]
    else:
        knowledge, notes = known_before(space, given, out or RUNS / "new")
        notes = [*choice_notes(given, space), *notes]
    starts = start_points(space, plan, knowledge)
    expected = None
    if space.data.given:
        from tune_cropshield.api.expectation import expect

        timed = []
        for family in space.families:
            ours = space.narrowed(family)
            point = with_fitting_pair(reference_point(ours), ours, plan.of(family))
            timed.append((ours, pair_of(point, ours, plan.of(family))))
        by_time = not resume and follows_time(given)
        expected = expect(space, resources, timed, cache_dir(), by_time=by_time)
        space = expected.space
    return DryRun(space, resources, plan, starts, reference_notes(space), notes, expected)
