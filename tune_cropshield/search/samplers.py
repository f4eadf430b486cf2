"""Samplers: what proposes the settings of the next trial.

Each function here returns an Optuna sampler, given a seed and how many trials are drawn at random before it learns from
them. A user's own, named as file.py:function, takes and returns the same.
"""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler

from tune_cropshield.config.registry import own_code, resolve
from tune_cropshield.errors import ConfigError


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
    """Returns a Gaussian process of noisy values. It learns from finished trials only, not from pruned ones."""
    return GPSampler(seed=seed, n_startup_trials=num_startup_trials, deterministic_objective=False)


def build_sampler(name: str, seed: int, num_existing: int, num_trials: int) -> BaseSampler:
    """Returns the sampler called `name` for a study that holds `num_existing` trials and shall hold `num_trials`.

    Its seed comes from both `seed` and `num_existing`: with `seed` alone, a resumed search would propose the very
    points it has tried. The first third of the trials (4 to 10) is random, so that a short search learns from it.

    Raises:
        ConfigError: a user's own cannot be loaded, raises, or returns no sampler.
    """
    derived = int(np.random.SeedSequence([seed, num_existing]).generate_state(1)[0])
    make = resolve("sampler", name)
    with warnings.catch_warnings(), own_code("sampler", name):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = make(seed=derived, num_startup_trials=min(10, max(4, num_trials // 3)))
    if not isinstance(sampler, BaseSampler):
        raise ConfigError([f"sampler {name!r} returned {sampler!r}, which is no sampler of Optuna"])
    return sampler
