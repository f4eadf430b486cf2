"""Which parameters to try next."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import optuna
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler


def build_sampler(name: Literal["tpe", "random", "gp"], seed: int, num_existing: int, num_trials: int) -> BaseSampler:
    """Returns the sampler for a study that holds `num_existing` trials and shall hold `num_trials`.

    Its seed comes from both `seed` and `num_existing`: with `seed` alone, a resumed search would propose the very
    points it has tried. The first third (4 to 10 trials) is random, so that a short search learns from something. TPE
    takes parameters jointly and keeps away from those still running (Watanabe, https://arxiv.org/abs/2304.11127).
    """
    derived = int(np.random.SeedSequence([seed, num_existing]).generate_state(1)[0])
    startup = min(10, max(4, num_trials // 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "random":
            return RandomSampler(seed=derived)
        if name == "gp":
            return GPSampler(seed=derived, n_startup_trials=startup, deterministic_objective=False)
        return TPESampler(seed=derived, n_startup_trials=startup, multivariate=True, constant_liar=True)
