"""A Gaussian process that proposes settings: Matern 5/2, averaged over length scales drawn from a prior.

Optuna's own fits one set of length scales by gradients and polishes every proposal, which takes 200 ms a trial, and it
takes every value for as exact as any other. Here values of trials that were stopped early are less certain, and a
proposal takes 15 ms: on recorded trainings it finds as good settings or better ones (`results/replay_2026-11`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr

VARIANCE = "variance"  # user attribute of a trial: of its value, 0 where it is not there
# User attribute of a study: [(values that tell a branch, {parameter that its trials do not have: what stands for it})].
ABSENT = "absent"
NUM_KERNELS = 48  # length scales drawn; the likeliest few of them are averaged
NUM_LIKELY = 8
NUM_RANDOM, NUM_NEAR = 256, 128  # settings that a proposal is chosen from: anywhere, and near the best
NUM_BEST = 4

Matrix = npt.NDArray[np.float64]


class GaussianProcess:
    """Values over points in the unit cube, for several length scales at once.

    Legend of shapes: K kernels, N points with values, M points asked about, D coordinates.
    """

    def __init__(self, points_ND: Matrix, values_N: Matrix, variances_N: Matrix, rng: np.random.Generator) -> None:
        """Takes the points, their values and the variance of each value beside the noise that is common to all."""
        num_values, num_coordinates = points_ND.shape
        self._mean, self._scale = float(values_N.mean()), float(values_N.std()) + 1e-9
        lengths_KD = np.exp(rng.normal(np.log(0.5), 0.8, (NUM_KERNELS, num_coordinates)))
        noise_K = np.exp(rng.normal(np.log(0.05), 1.0, NUM_KERNELS))
        own_KN = noise_K[:, None] + variances_N[None, :] / self._scale**2 + 1e-6
        covariance_KNN = _matern(points_ND, points_ND, lengths_KD) + own_KN[:, :, None] * np.eye(num_values)
        factor_KNN = np.linalg.cholesky(covariance_KNN)
        standard_KN1 = np.broadcast_to((values_N - self._mean)[:, None] / self._scale, (NUM_KERNELS, num_values, 1))
        whitened_KN = np.linalg.solve(factor_KNN, standard_KN1)[:, :, 0]
        log_likelihood_K = -0.5 * (whitened_KN**2).sum(axis=1) - np.log(np.diagonal(factor_KNN, axis1=1, axis2=2)).sum(
            axis=1
        )
        likely = np.argsort(-log_likelihood_K)[:NUM_LIKELY]
        weights = np.exp(log_likelihood_K[likely] - log_likelihood_K[likely[0]])
        self.weights_K = weights / weights.sum()
        self._points_ND, self._lengths_KD = points_ND, lengths_KD[likely]
        self._factor_KNN, self._whitened_KN = factor_KNN[likely], whitened_KN[likely]

    def predict(self, points_MD: Matrix) -> tuple[Matrix, Matrix]:
        """Returns the mean and the standard deviation at points, (K, M) each; `weights_K` weighs the kernels."""
        shared_KNM = _matern(self._points_ND, points_MD, self._lengths_KD)
        solved_KNM = np.linalg.solve(self._factor_KNN, shared_KNM)
        mean_KM = np.einsum("knm,kn->km", solved_KNM, self._whitened_KN)
        variance_KM = np.maximum(1 - (solved_KNM**2).sum(axis=1), 1e-9)
        return mean_KM * self._scale + self._mean, np.sqrt(variance_KM) * self._scale

    def mean(self, points_MD: Matrix) -> Matrix:
        """Returns the mean over the kernels at points, (M,)."""
        return np.asarray(np.einsum("k,km->m", self.weights_K, self.predict(points_MD)[0]))

    def expected_improvement(self, points_MD: Matrix, best: float) -> Matrix:
        """Returns by how much each point's value is expected to exceed `best`, (M,)."""
        mean_KM, deviation_KM = self.predict(points_MD)
        away_KM = (mean_KM - best) / deviation_KM
        density_KM = np.exp(-0.5 * away_KM**2) / math.sqrt(2 * math.pi)
        improvement_KM = deviation_KM * (away_KM * ndtr(away_KM) + density_KM)
        return np.asarray(np.einsum("k,km->m", self.weights_K, improvement_KM))


def _matern(one_ND: Matrix, other_MD: Matrix, lengths_KD: Matrix) -> Matrix:
    """Returns the Matern 5/2 covariance of points for each kernel, (K, N, M)."""
    squares_NMD = (one_ND[:, None, :] - other_MD[None, :, :]) ** 2
    distance_KNM = np.sqrt(5 * np.einsum("nmd,kd->knm", squares_NMD, lengths_KD**-2.0) + 1e-12)
    return np.asarray((1 + distance_KNM + distance_KNM**2 / 3) * np.exp(-distance_KNM))


class SurrogateSampler(BaseSampler):
    """An Optuna sampler that proposes where the expected improvement over the best is largest.

    Trials that run count with what they are expected to come to (Ginsbourger et al.'s kriging believer), so that two
    at once are not alike. Before `num_startup_trials` have a value, settings are drawn at random.
    """

    def __init__(self, seed: int, num_startup_trials: int) -> None:
        self._seed, self._num_startup_trials = seed, num_startup_trials
        self._random = RandomSampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Returns the parameters that all trials with a value have."""
        found = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: distribution for name, distribution in found.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns the proposal, {} while there are too few values."""
        ended = [other for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))]
        if len(ended) < max(2, self._num_startup_trials) or not search_space:
            return {}
        running = [
            other
            for other in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if other.number != trial.number and search_space.keys() <= other.params.keys()
        ]
        rng = np.random.default_rng([self._seed, trial.number])
        space = _UnitCube(search_space)
        points = space.points([other.params for other in ended])
        values = _without_a_tail(np.array([other.value for other in ended], dtype=float))
        variances = np.array([other.user_attrs.get(VARIANCE, 0.0) for other in ended])
        model = GaussianProcess(points, values, variances, rng)
        best = float(model.mean(points).max())
        if running:
            ahead = space.points([other.params for other in running])
            believed = np.concatenate([values, model.mean(ahead)])
            model = GaussianProcess(
                np.concatenate([points, ahead]), believed, np.concatenate([variances, np.zeros(len(running))]), rng
            )
        near = [ended[place].params for place in np.argsort(-values)[:NUM_BEST]]
        candidates = [space.anywhere(rng) for _ in range(NUM_RANDOM)]
        candidates += [space.near(near[place % len(near)], rng) for place in range(NUM_NEAR)]
        candidates = [_neutral(setting, study.user_attrs.get(ABSENT, [])) for setting in candidates]
        improvement = model.expected_improvement(space.points(candidates), best)
        return candidates[int(np.argmax(improvement))]

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Returns a random value."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _neutral(setting: dict[str, Any], absent: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Returns `setting` with what its branch does not have where it stands in all trials of the branch."""
    for values, missing in absent:
        if all(setting.get(name, value) == value for name, value in values.items()):
            return {name: missing.get(name, value) for name, value in setting.items()}
    return setting


def _without_a_tail(values_N: Matrix) -> Matrix:
    """Returns values in which the bad ones are no further below the median than twice what the best is above it.

    How bad a setting is matters little; without this the process would spend its whole range on telling bad from worse.
    """
    median = float(np.median(values_N))
    return np.asarray(np.maximum(values_N, median - 2 * (values_N.max() - median) - 1e-3))


class _UnitCube:
    """Settings as points in the unit cube: a coordinate for each ordered parameter, one for each unordered choice."""

    def __init__(self, distributions: dict[str, BaseDistribution]) -> None:
        self._distributions = distributions

    def points(self, settings: Sequence[dict[str, Any]]) -> Matrix:
        """Returns (N, D)."""
        return np.array(
            [
                [
                    coordinate
                    for name, distribution in self._distributions.items()
                    for coordinate in _coordinates(distribution, setting[name])
                ]
                for setting in settings
            ]
        )

    def anywhere(self, rng: np.random.Generator) -> dict[str, Any]:
        """Returns a setting drawn evenly from the space."""
        return {name: _value_at(known, rng.random()) for name, known in self._distributions.items()}

    def near(self, setting: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Returns a setting in which a range's values are moved a tenth or so, and choices perhaps to neighbours."""
        return {name: _moved(known, setting[name], rng) for name, known in self._distributions.items()}


def _coordinates(distribution: BaseDistribution, value: Any) -> list[float]:
    """Returns where a value lies: in [0, 1], or for unordered choices at a corner, all as far from each other as 1."""
    if isinstance(distribution, CategoricalDistribution):
        return [math.sqrt(0.5) * (choice == value) for choice in distribution.choices]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = distribution.low, distribution.high
    if distribution.log:
        return [math.log(value / low) / math.log(high / low)]
    return [(value - low) / (high - low)]


def _value_at(distribution: BaseDistribution, place: float) -> Any:
    """Returns the value at a place in [0, 1)."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(place * len(distribution.choices))]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    low, high = distribution.low, distribution.high
    whole = isinstance(distribution, IntDistribution)
    if whole and not distribution.log:
        return low + int(place * (high - low + 1))
    value = low * (high / low) ** place if distribution.log else low + place * (high - low)
    return min(max(round(value) if whole else float(value), low), high)


def _moved(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return value if rng.random() < 0.8 else distribution.choices[rng.integers(len(distribution.choices))]
    assert isinstance(distribution, (FloatDistribution, IntDistribution))
    if isinstance(distribution, IntDistribution) and not distribution.log and distribution.high - distribution.low < 16:
        step = 0 if rng.random() < 0.6 else rng.choice([-1, 1])
        return int(min(max(value + step, distribution.low), distribution.high))
    place = _coordinates(distribution, value)[0] + rng.normal(0, 0.1)
    return _value_at(distribution, float(min(max(place, 0.0), 1 - 1e-12)))
