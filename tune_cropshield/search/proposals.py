"""What a sampler proposes next, from a study of its own.

The journal tells the truth: a trial that was stopped early is PRUNED, a norm is "none" or a number. Samplers need other
things: Optuna's Gaussian process learns from finished trials only, and knows no order among choices. So the sampler
gets a study in memory, made anew for each proposal, in which every trial that ended has a value (what it would have
come to; see `worth`) and every parameter lies on its axis (see `axes`). Where the range of a parameter depends on a
choice, its place there is shown; one that a trial does not have stands in the middle of its axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune_cropshield.config.goals import Goal
from tune_cropshield.search.axes import axes_of
from tune_cropshield.search.journal import is_stopped, quiet_optuna, study_goal
from tune_cropshield.search.searched import Searched
from tune_cropshield.search.surrogate import ABSENT, VARIANCE
from tune_cropshield.search.worth import UNKNOWN_GAIN, UNKNOWN_SHARE, worths

Prior = Callable[[Sequence[float]], Sequence[tuple[Mapping[str, Any], float]]]


class OwnStudySampler(BaseSampler):
    """The sampler of a journal's study: lets another one propose, from a study of its own."""

    def __init__(
        self, sampler_for: Callable[[int], BaseSampler], searched: Searched, prior: Prior | None = None
    ) -> None:
        """Takes what the journal's study knows of the parameters.

        Args:
            sampler_for: (number of a trial) -> the sampler that proposes it, with no memory of earlier proposals.
            prior: (values of this search's own trials) -> settings and values to show the sampler beside them.
        """
        self._sampler_for, self._prior, self._searched = sampler_for, prior, searched
        branches = zip(searched.branches, axes_of([branch.own for branch in searched.branches]), strict=True)
        self._axes = {branch: own for branch, own in branches}
        every = {name: axis for own in self._axes.values() for name, axis in own.items()}
        self._distributions = {name: axis.distribution for name, axis in every.items()}
        self._neutral = {name: axis.neutral for name, axis in every.items()}
        self._proposed: dict[str, Any] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns nothing: what a place on an axis means is known when the trial has its choices."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Lets the other sampler propose a whole setting; `sample_independent` hands it out. Returns nothing."""
        with quiet_optuna(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            own = optuna.create_study(direction="maximize", sampler=self._sampler_for(trial.number))
            if absent := self._absent():
                own.set_user_attr(ABSENT, absent)
            own.add_trials(self._shown(study.get_trials(deepcopy=False), study_goal(study)))
            self._proposed = own.ask(self._distributions).params
        return {}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns what was proposed for a parameter, in the journal's terms, given those that the trial has by now."""
        branch = self._searched.of(trial.params)
        axis = self._axes[branch].get(param_name)
        if axis is None:  # it has one value in each branch
            own = branch.own[param_name]
            return own.choices[0] if isinstance(own, CategoricalDistribution) else own.low  # type: ignore[attr-defined]
        return axis.meant(self._proposed[param_name])

    def _absent(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Returns for each branch its values as the sampler sees them, and what stands for what it does not have."""
        found = []
        for branch in self._searched.branches:
            axes = self._axes[branch]
            values = {name: axes[name].shown(value) for name, value in branch.family.items() if name in axes}
            absent = {name: value for name, value in self._neutral.items() if name not in axes}
            found += [(values, absent)] if absent else []
        return found

    def _shown(self, trials: Sequence[FrozenTrial], goal: Goal) -> list[FrozenTrial]:
        """Returns the trials as the sampler sees them: with values of which the higher are the better.

        One that diverged, or ran out of memory, is worth what the worst is; one that failed says nothing.
        """
        ended = [
            trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or is_stopped(trial)
        ]
        values = {
            trial.number: {epoch: goal.rank(value) for epoch, value in trial.intermediate_values.items()}
            for trial in ended
            if trial.intermediate_values
        }
        found = worths(values, UNKNOWN_GAIN if goal.is_share else UNKNOWN_SHARE * _range_of_last(values))
        shown = [
            self._frozen(trial.params)
            for trial in trials
            if trial.state == TrialState.RUNNING and not is_stopped(trial)
        ]
        if found or any(not trial.intermediate_values for trial in ended):
            worst = min((worth.value for worth in found.values()), default=0.0)
            for trial in ended:
                worth = found.get(trial.number)
                value, variance = (worth.value, worth.variance) if worth is not None else (worst, 0.0)
                shown.append(self._frozen(trial.params, value, variance))
        if self._prior is not None:
            own_values = [worth.value for worth in found.values()]
            shown += [self._frozen(parameters, value) for parameters, value in self._prior(own_values)]
        return [trial for trial in shown if trial is not None]

    def _frozen(
        self, parameters: Mapping[str, Any], value: float | None = None, variance: float = 0.0
    ) -> FrozenTrial | None:
        """Returns a trial of the sampler's study, running without a value; None where the space does not hold it."""
        branch = self._searched.of(parameters)
        axes = self._axes[branch]
        try:
            shown = {name: axes[name].shown(parameters[name]) for name in branch.own if name in axes}
        except (KeyError, ValueError):  # of a time when other batches fitted, or killed between two parameters
            return None
        return create_trial(
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            value=value,
            params={name: shown.get(name, neutral) for name, neutral in self._neutral.items()},
            distributions=self._distributions,
            user_attrs={VARIANCE: variance},
        )


def _range_of_last(values: Mapping[int, Mapping[int, float]]) -> float:
    """Returns how far apart the last values of trials lie: {number: {epoch: value}}."""
    last = [of_trial[max(of_trial)] for of_trial in values.values()]
    return max(last) - min(last) if last else 0.0
