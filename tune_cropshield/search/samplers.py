"""Samplers: what proposes the settings of the next trial.

Each function here returns an Optuna sampler, given a seed and how many trials are drawn at random before it learns from
them. A user's own, named as file.py:function, takes and returns the same.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial

from tune_cropshield.config.registry import own_code, resolve
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.surrogate import SurrogateSampler

FEWEST_FOR_SURROGATE = 4  # trials with a value: before, settings are drawn at random
MOST_FOR_SURROGATE = 200  # trials: with more, a proposal of the surrogate takes longer than TPE's
MOST_PARAMETERS_FOR_SURROGATE = 20


class AutoSampler(BaseSampler):
    """Lets the surrogate propose while a search is short and its parameters are few, TPE otherwise.

    On recorded trainings the surrogate is ahead of TPE with two networks of three and level with it with the third
    (`results/replay_2026-11`); its time grows with the cube of the trials.
    """

    def __init__(self, seed: int, num_startup_trials: int) -> None:
        self._surrogate, self._tpe = SurrogateSampler(seed, FEWEST_FOR_SURROGATE), tpe(seed, num_startup_trials)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns what the sampler chosen takes together."""
        space = self._surrogate.infer_relative_search_space(study, trial)
        is_short = len(study.get_trials(deepcopy=False)) <= MOST_FOR_SURROGATE
        few = len(space) <= MOST_PARAMETERS_FOR_SURROGATE
        self._chosen = self._surrogate if is_short and few else self._tpe
        return self._chosen.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the proposal of the sampler chosen."""
        return self._chosen.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns a value from the sampler chosen."""
        return self._chosen.sample_independent(study, trial, param_name, param_distribution)


def auto(seed: int, num_startup_trials: int) -> BaseSampler:
    """Returns the sampler that suits the search's length."""
    return AutoSampler(seed, num_startup_trials)


def tpe(seed: int, num_startup_trials: int) -> BaseSampler:
    """Returns the tree-structured Parzen estimator.

    It takes parameters jointly and keeps away from those that are still running (Watanabe,
    https://arxiv.org/abs/2304.11127).
    """
    return TPESampler(seed=seed, n_startup_trials=num_startup_trials, multivariate=True, constant_liar=True)


def random(seed: int, num_startup_trials: int) -> BaseSampler:
    """Returns uniform sampling."""
    return RandomSampler(seed=seed)


def gp(seed: int, num_startup_trials: int) -> BaseSampler:
    """Returns Optuna's Gaussian process, of noisy values."""
    return GPSampler(seed=seed, n_startup_trials=num_startup_trials, deterministic_objective=False)


def build_sampler(name: str, seed: int, number: int, num_trials: int) -> BaseSampler:
    """Returns the sampler called `name` that proposes trial `number` of a study that shall hold `num_trials`.

    What it draws at random comes from `seed` and `number` alone: a search that was killed and resumed proposes what it
    would have proposed. The first third of the trials (4 to 10) is random, so that a short search learns from it.

    Raises:
        ConfigError: a user's own cannot be loaded, raises, or returns no sampler.
    """
    derived = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    make = resolve("sampler", name)
    with warnings.catch_warnings(), own_code("sampler", name):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = make(seed=derived, num_startup_trials=min(10, max(4, num_trials // 3)))
    if not isinstance(sampler, BaseSampler):
        raise ConfigError([f"sampler {name!r} returned {sampler!r}, which is no sampler of Optuna"])
    return sampler
