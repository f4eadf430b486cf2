"""What is searched, as Optuna knows it: the distributions of each family's trials.

A family is one combination of the choices that have ranges of their own or decide on the network and its images. A
space without such choices has one family, and all its trials have the same distributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from tune_cropshield.config.space import SearchSpace
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.search.trial_settings import distributions

Distributions = Mapping[str, BaseDistribution]


@dataclass(frozen=True, eq=False)
class Branch:
    """What the trials of one family have.

    Attributes:
        family: the values that make the family.
        own: what these trials can be, their family's choices first.
        kept: the same as the journal has it. A list of choices holds those of all families there: Optuna takes no two
            lists for one name. Ranges are the family's own.
    """

    family: Mapping[str, Any]
    own: Distributions
    kept: Distributions


@dataclass(frozen=True)
class Searched:
    """The branches of a space, one for each family."""

    branches: tuple[Branch, ...]

    @classmethod
    def alike(cls, found: Distributions) -> Self:
        """Returns what is searched where all trials have these distributions."""
        return cls((Branch({}, dict(found), dict(found)),))

    def of(self, parameters: Mapping[str, Any]) -> Branch:
        """Returns the first branch that has these parameters, which may be those of a trial that lacks some yet.

        Where an earlier plan or space allowed what none has, it is the first of all.
        """
        agreeing = (
            branch
            for branch in self.branches
            if all(parameters.get(name, value) == value for name, value in branch.family.items())
        )
        return next(agreeing, self.branches[0])

    def begun(self, study: optuna.Study) -> Searched:
        """Returns the same with the lists of choices that a resumed search's trials were sampled from.

        Optuna knows no others any more. What fits may have changed since: other memory is free, or a micro-batch ran
        out of it. A pair that does not fit is halved when its memory runs out.
        """
        trials = study.get_trials(deepcopy=False)
        begun = {
            name: known
            for trial in trials
            for name, known in trial.distributions.items()
            if isinstance(known, CategoricalDistribution)
        }
        return Searched(tuple(_begun(branch, begun) for branch in self.branches))


def searched_in(space: SearchSpace, plan: Plan) -> Searched:
    """Returns what Optuna samples from: of effective batches (or pairs) those that the plan says fit."""
    found = []
    for family in space.families:
        domains = space.domains_of(family)
        deciding = {name: domains[name].distribution() for name in family}
        found.append((family, {**deciding, **distributions(space.narrowed(family), plan.of(family))}))
    kept = _joined([own for _, own in found])
    return Searched(tuple(Branch(family, own, {n: kept.get(n, own[n]) for n in own}) for family, own in found))


def _joined(owns: Sequence[Distributions]) -> dict[str, BaseDistribution]:
    """Returns for each parameter that is chosen from a list one list with the choices of all."""
    lists: dict[str, dict[tuple[bool, Any], Any]] = {}
    for own in owns:
        for name, known in own.items():
            if isinstance(known, CategoricalDistribution):  # true is not 1
                lists.setdefault(name, {}).update({(isinstance(value, bool), value): value for value in known.choices})
    return {name: CategoricalDistribution(list(choices.values())) for name, choices in lists.items()}


def _begun(branch: Branch, begun: Mapping[str, CategoricalDistribution]) -> Branch:
    own, kept = dict(branch.own), dict(branch.kept)
    for name, known in branch.kept.items():
        if not isinstance(known, CategoricalDistribution) or name not in begun:
            continue
        kept[name] = own[name] = begun[name]
        mine: Any = branch.own[name]
        if mine != known and (left := [value for value in begun[name].choices if value in mine.choices]):
            own[name] = CategoricalDistribution(left)
    return Branch(branch.family, own, kept)
