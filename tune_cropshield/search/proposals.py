"""What a sampler proposes next, from a study of its own.

The journal tells the truth: a trial that was stopped early is PRUNED, a norm is "none" or a number. Samplers need other
things: Optuna's Gaussian process learns from finished trials only, and knows no order among choices. So the sampler
gets a study in memory, made anew for each proposal, in which every trial that ended has a value (what it would have
come to; see `worth`) and every parameter lies on its axis (see `axes`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from tune_cropshield.search.axes import axes
from tune_cropshield.search.journal import is_stopped, quiet_optuna
from tune_cropshield.search.surrogate import VARIANCE
from tune_cropshield.search.worth import worths

Prior = Callable[[Sequence[float]], Sequence[tuple[Mapping[str, Any], float]]]


class OwnStudySampler(BaseSampler):
    """The sampler of a journal's study: lets another one propose, from a study of its own."""

    def __init__(
        self,
        sampler_for: Callable[[int], BaseSampler],
        distributions: Mapping[str, BaseDistribution],
        prior: Prior | None = None,
    ) -> None:
        """Takes what the journal's study knows of the parameters.

        Args:
            sampler_for: (number of a trial) -> the sampler that proposes it, with no memory of earlier proposals.
            prior: (values of this search's own trials) -> settings and values to show the sampler beside them.
        """
        self._sampler_for, self._prior = sampler_for, prior
        self._distributions, self._axes = dict(distributions), axes(distributions)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns all parameters: they are proposed together."""
        return self._distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the parameters of the next trial, in the journal's terms."""
        with quiet_optuna(), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            own = optuna.create_study(direction="maximize", sampler=self._sampler_for(trial.number))
            own.add_trials(self._shown(study.get_trials(deepcopy=False)))
            shown = own.ask({name: axis.distribution for name, axis in self._axes.items()}).params
        return {name: self._axes[name].meant(value) for name, value in shown.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Is never asked, since all parameters are proposed together."""
        raise AssertionError(f"{param_name} was not proposed")

    def _shown(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Returns the trials as the sampler sees them.

        One that diverged, or ran out of memory, is worth what the worst is; one that failed says nothing.
        """
        ended = [
            trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or is_stopped(trial)
        ]
        found = worths({trial.number: trial.intermediate_values for trial in ended if trial.intermediate_values})
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
        try:
            shown = {name: self._axes[name].shown(parameters[name]) for name in self._axes}
        except (KeyError, ValueError):  # of a time when other batches fitted, or killed between two parameters
            return None
        return create_trial(
            state=TrialState.RUNNING if value is None else TrialState.COMPLETE,
            value=value,
            params=shown,
            distributions={name: axis.distribution for name, axis in self._axes.items()},
            user_attrs={VARIANCE: variance},
        )
