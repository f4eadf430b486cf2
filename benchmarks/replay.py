"""What does a search find within so many epochs? Played on recorded trainings, over hundreds of seeds.

    python benchmarks/replay.py CSV... [--methods NAME...] [--seeds 200] [--budgets 32 64 128 256] [--workers 1]
        [--out FILE] [--optimizer adamw|sgd] [--pretrained]

A table holds whole trainings of random settings, a row an epoch (`benchmarks/record_curves.py` records one). Its ranges
and choices are found in it; its first trial is the reference setting. A proposal is answered by the nearest setting of
the table that was not used yet. What near means is chosen per table, by what tells a setting's accuracy best from its
neighbour's (leave one out; the errors are shown). Each seed plays with another four fifths of the settings, the same
for every method: else the few starting points would meet the same luck in all of them.

Methods: `default` (the product's own sampler, pruning rule, starting points and trial 0, as a search comes), `stock`
(Ray's OptunaSearch and ASHAScheduler with their own defaults), `random-halving` (random settings, that ASHA), `random`
(random settings, each to its end), `guide` (the five settings that the guide recommends, each to its end) are always
played; others by name, see METHODS (`learned` knows the other tables of the same optimizer as earlier searches). With
`--workers`, trainings run side by side in simulated time. An epoch is counted when it ends. The reference setting of
`default` is trained to its end at last where that takes no more than a tenth of the epochs: such a budget pays for it.

One JSON line per table, method and budget: best_mean, best_se and best_sd (the best accuracy so far, over seeds),
final_mean (what the setting that would be handed back comes to at its end), trials_mean, epochs_to_stock_256 (when the
mean reaches stock's mean after 256 epochs; null if never), and against stock, paired over seeds, the mean difference
and the p of Wilcoxon's signed-rank test.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import math
import os
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count, pairwise
from multiprocessing import Pool
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import optuna
from optuna.samplers import RandomSampler
from scipy.stats import wilcoxon

from tune_cropshield.config.domain import NO_BOUND
from tune_cropshield.config.reference import CNN_FROM_SCRATCH, RESNET_ONECYCLE, ends_reference
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.config.starts import usual_starts
from tune_cropshield.memory.choose.pairs import Plan, plan_for_cpu
from tune_cropshield.search.axes import axes
from tune_cropshield.search.endings import FINISHED, PRUNED, end_trial, report_epoch, stop_trial
from tune_cropshield.search.knowledge import Past, PastTrial, knowledge_of
from tune_cropshield.search.proposals import OwnStudySampler
from tune_cropshield.search.pruning import NoPruning, PruningRule, RayAsha, build_pruning
from tune_cropshield.search.samplers import build_sampler, tpe
from tune_cropshield.search.searched import searched_in
from tune_cropshield.search.start_points import start_points
from tune_cropshield.search.steering import Steering
from tune_cropshield.search.trial_settings import distributions, effective_batches

ALWAYS = ("default", "stock", "random-halving", "random", "guide")
STOCK_BUDGET = 256  # epochs after which stock's mean accuracy is the mark
KEPT_SHARE = 0.8  # of a table's settings, for each seed
MEASURED = ("val_acc", "val_macro_f1", "val_loss", "train_loss", "grad_norm_p50", "clip_rate", "epoch_s")
NO_SETTINGS = ("trial", "epoch", "micro_batch", *MEASURED)
MOST_CHOICES = 8  # distinct values of a column that is a list of choices; with more it is a range
LOG_FROM = 20  # a range whose end is so many times its start is logarithmic
WEIGHTS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # of an axis, when settings are compared
# Of the guide's "Hyperparameter Recommendations": RTX 4060, custom CNN and EfficientNet twice; RTX 3050, both.
GUIDES = ((32, NO_BOUND), (32, NO_BOUND), (64, 1.0), (32, NO_BOUND), (32, 1.0))

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Recorded trainings. Settings are in the order of the table, the reference first.

    Attributes:
        best_so_far, losses, seconds: (settings, epochs): highest validation accuracy up to an epoch, its validation
            loss, and what it took.
        points: (settings, axes): the settings in the unit cube, each axis times its weight.
        error_plain, error_weighted: by how much a setting's accuracy differs from its nearest neighbour's, in the mean,
            with equal weights and with those chosen.
        pasts: the other tables of the same optimizer, as earlier searches; for the method `learned`.
    """

    name: str
    space: SearchSpace
    settings: tuple[dict[str, Any], ...]
    best_so_far: Floats
    losses: Floats
    seconds: Floats
    points: Floats
    weights: Floats
    error_plain: float
    error_weighted: float
    pasts: tuple[Past, ...] = ()

    @property
    def epochs(self) -> int:
        return self.best_so_far.shape[1]

    @property
    def plan(self) -> Plan:
        return plan_for_cpu(effective_batches(self.space))

    @property
    def optimizer(self) -> str:
        return str(self.space.trial["optimizer"])

    @property
    def as_past(self) -> Past:
        """The table as an earlier search of random settings."""
        courses = [dict(enumerate(map(float, values), start=1)) for values in self.best_so_far]
        trials = (PastTrial(dict(setting), course) for setting, course in zip(self.settings, courses, strict=True))
        return Past(self.name, tuple(trials))

    def part(self, seed: int) -> Table:
        """Returns the four fifths of the settings that a seed plays with; the reference is always there."""
        total = len(self.settings)
        others = np.random.default_rng([seed, total]).permutation(np.arange(1, total))
        kept = np.sort(np.concatenate([[0], others[: round(KEPT_SHARE * total) - 1]]))
        return replace(
            self,
            settings=tuple(self.settings[place] for place in kept),
            best_so_far=self.best_so_far[kept],
            losses=self.losses[kept],
            seconds=self.seconds[kept],
            points=self.points[kept],
        )


def read_table(path: Path, optimizer: str | None = None, pretrained: bool = False) -> Table:
    """Returns the table in a CSV file. Trials that do not have all epochs are left out.

    optimizer: None takes the one whose reference setting the table's first trial is.

    Raises ValueError where all trials have the same setting.
    """
    trials: dict[str, list[dict[str, str]]] = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            trials.setdefault(row["trial"], []).append(row)
    epochs = max(len(rows) for rows in trials.values())
    whole = [rows for rows in trials.values() if len(rows) == epochs]
    names = [name for name in whole[0][0] if name not in NO_SETTINGS]
    values = {name: [_value(rows[0][name]) for rows in whole] for name in names}
    searched = {name: column for name, column in values.items() if len(set(column)) > 1}
    if not searched:
        raise ValueError(f"{path}: all of its trials have the same setting, so that there is nothing to search")
    fixed = {name: column[0] for name, column in values.items() if len(set(column)) == 1}
    settings = tuple(dict(zip(searched, row, strict=True)) for row in zip(*searched.values(), strict=True))
    tables = {
        "trial": {
            **{name: value for name, value in fixed.items() if name not in ("lr", "effective_batch")},
            "optimizer": optimizer or _optimizer_of(settings[0] | fixed),
            "pretrained": pretrained,
            "model": "resnet18" if pretrained else "tiny_cnn",
            "warmup_epochs": 0.0,
        },
        "space": {name: _domain(column) for name, column in searched.items()},
        "search": {"epochs": epochs, "trials": 100_000},
    }
    space = space_from(tables, {}, str(path))
    space = space.model_copy(update={"start": usual_starts(space)})
    best_so_far = np.maximum.accumulate(_column(whole, "val_acc"), axis=1)
    points = _points(space, settings)
    weights, plain, weighted = _weights(points, best_so_far[:, -1])
    return Table(
        path.stem,
        space,
        settings,
        best_so_far,
        _column(whole, "val_loss"),
        _column(whole, "epoch_s"),
        points * weights,
        weights,
        plain,
        weighted,
    )


def _value(text: str) -> Any:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() and "." not in text and "e" not in text.lower() else number


def _column(whole: Sequence[Sequence[dict[str, str]]], name: str) -> Floats:
    return np.array([[float(row[name]) for row in rows] for rows in whole])


def _optimizer_of(reference: dict[str, Any]) -> str:
    """Returns the optimizer whose reference learning rate a setting's is nearest to."""
    apart = {
        name: abs(math.log(reference.get("lr", 1e-3) / advice["lr"]))
        for name, advice in (("adamw", CNN_FROM_SCRATCH), ("sgd", RESNET_ONECYCLE))
    }
    return min(apart, key=lambda name: apart[name])


def _domain(column: Sequence[Any]) -> dict[str, Any]:
    """Returns the domain that a column's values were drawn from, as far as they tell."""
    known = set(column)
    numbers = [value for value in known if not isinstance(value, str)]
    if len(known) <= MOST_CHOICES or len(numbers) < len(known):
        ordered = sorted(known, key=lambda value: (isinstance(value, str), value))
        return {"choice": ordered}
    low, high = min(numbers), max(numbers)
    if all(isinstance(value, int) for value in numbers):
        return {"int": [low, high]}
    return {"log" if low > 0 and high / low >= LOG_FROM else "uniform": [float(low), float(high)]}


def _points(space: SearchSpace, settings: Sequence[dict[str, Any]]) -> Floats:
    """Returns the settings in the unit cube, (settings, axes); words without an order take one axis a word."""
    columns: list[list[float]] = []
    for name, axis in axes(distributions(space, plan_for_cpu(effective_batches(space)))).items():
        known = axis.distribution
        shown = [axis.shown(setting[name]) for setting in settings]
        if isinstance(known, optuna.distributions.CategoricalDistribution):
            columns += [[0.7 * (value == choice) for value in shown] for choice in known.choices]
            continue
        assert isinstance(known, (optuna.distributions.FloatDistribution, optuna.distributions.IntDistribution))
        of = math.log if known.log else float
        columns.append([(of(value) - of(known.low)) / (of(known.high) - of(known.low)) for value in shown])
    return np.array(columns).T


def _weights(points: Floats, accuracies: Floats) -> tuple[Floats, float, float]:
    """Returns the axes' weights with which the nearest other setting tells an accuracy best, and the mean errors."""

    def error(weights: Floats) -> float:
        scaled = points * weights
        apart = ((scaled[:, None, :] - scaled[None, :, :]) ** 2).sum(axis=2)
        np.fill_diagonal(apart, np.inf)
        return float(np.abs(accuracies - accuracies[apart.argmin(axis=1)]).mean())

    weights = np.ones(points.shape[1])
    plain = best = error(weights)
    for _ in range(3):
        for axis in range(len(weights)):
            for weight in WEIGHTS:
                tried = weights.copy()
                tried[axis] = weight
                if (found := error(tried)) < best - 1e-9:
                    weights, best = tried, found
    return weights, plain, best


class Method(Protocol):
    """A search as the replay plays it. Trials are known by keys of the method's own."""

    def next(self) -> tuple[Any, dict[str, Any]] | None:
        """Returns a trial to train now, and its setting; None where there is none yet, or no more."""
        ...

    def result(self, key: Any, epoch: int, value: float, loss: float, is_last: bool) -> bool:
        """Takes in a trial's best accuracy so far, and returns whether it stops."""
        ...

    def epochs_at_the_end(self, epochs_of: dict[Any, int]) -> int:
        """Returns how many epochs the search would still train when its budget ends."""
        ...


class Steered:
    """The product's own search."""

    def __init__(
        self,
        table: Table,
        seed: int,
        *,
        starts: bool = True,
        baseline: bool = True,
        pasts: Sequence[Past] = (),
        **search: Any,
    ) -> None:
        space = table.space
        settings = space.search.model_copy(update={"seed": seed, "baseline": baseline, **search})
        space = space.model_copy(update={"search": settings})
        self._epochs, self._baseline = settings.epochs, baseline
        searched = searched_in(space, table.plan)
        sampler_for = partial(build_sampler, settings.sampler, seed, num_trials=40)
        knowledge = knowledge_of(pasts, space)
        own = OwnStudySampler(sampler_for, searched, partial(knowledge.prior, space))
        self._study = optuna.create_study(direction="maximize", sampler=own)
        points = start_points(space, table.plan, knowledge)
        for point in points if starts else points[: 1 if baseline else 0]:
            self._study.enqueue_trial(point, skip_if_exists=True)
        self._rule = self.rule(settings.epochs, build_pruning(settings))
        self._steering = Steering(self._study, searched, self._rule, settings.trials, reference_epochs=None)
        self._reported: dict[int, dict[int, float]] = {}
        self._trials: dict[int, optuna.Trial] = {}

    def rule(self, epochs: int, own: PruningRule) -> PruningRule:
        """Returns the pruning rule."""
        return own

    def next(self) -> tuple[Any, dict[str, Any]] | None:
        trial = self._steering.next_trial()
        if trial is None:
            return None
        self._trials[trial.number] = trial
        self._reported.setdefault(trial.number, {})
        return trial.number, dict(trial.params)

    def result(self, key: Any, epoch: int, value: float, loss: float, is_last: bool) -> bool:
        self._reported[key][epoch] = value
        stops = self._steering.judge(key, epoch, value, loss)
        if is_last:
            end_trial(self._study, self._trials[key], FINISHED, None, self._reported[key])
        elif stops:
            stop_trial(self._study, self._trials[key], self._reported[key])
        else:
            report_epoch(self._study, self._trials[key], epoch, value)
        return stops

    def epochs_at_the_end(self, epochs_of: dict[Any, int]) -> int:
        if not self._baseline or 0 not in epochs_of:
            return 0
        ends = ends_reference(self._epochs, epochs_of[0], sum(epochs_of.values()))
        return self._epochs - epochs_of[0] if ends else 0


class Previous:
    """The product's search as it was: multivariate TPE, Ray's halving, the reference first and to its end."""

    def __init__(self, table: Table, seed: int, *, starts: bool = False) -> None:
        self._searched = distributions(table.space, table.plan)
        self._study = optuna.create_study(direction="maximize", sampler=tpe(seed, 10))
        points = start_points(table.space, table.plan)
        for point in points if starts else points[:1]:
            self._study.enqueue_trial(point, skip_if_exists=True)
        self._rule = RayAsha(table.epochs, 2, 3.0)
        self._trials: dict[int, optuna.Trial] = {}
        self._reported: dict[int, dict[int, float]] = {}

    def next(self) -> tuple[Any, dict[str, Any]] | None:
        trial = self._study.ask(self._searched)
        self._trials[trial.number], self._reported[trial.number] = trial, {}
        return trial.number, dict(trial.params)

    def result(self, key: Any, epoch: int, value: float, loss: float, is_last: bool) -> bool:
        self._reported[key][epoch] = value
        stops = self._rule.judge(key, epoch, value, loss) and key != 0
        if is_last or stops:
            end_trial(self._study, self._trials[key], FINISHED if is_last else PRUNED, None, self._reported[key])
        else:
            report_epoch(self._study, self._trials[key], epoch, value)
        return stops

    def epochs_at_the_end(self, epochs_of: dict[Any, int]) -> int:
        return 0


class Stock:
    """Ray Tune's OptunaSearch and ASHAScheduler as they come: grace_period 1, reduction_factor 4."""

    def __init__(self, table: Table, seed: int) -> None:
        from ray.tune.search.optuna import OptunaSearch

        searched = distributions(table.space, table.plan)
        self._search = OptunaSearch(searched, metric="value", mode="max", seed=seed)
        self._rule = RayAsha(table.epochs, 1, 4.0)
        self._numbers = count()

    def next(self) -> tuple[Any, dict[str, Any]] | None:
        number = next(self._numbers)
        return number, self._search.suggest(str(number))

    def result(self, key: Any, epoch: int, value: float, loss: float, is_last: bool) -> bool:
        result = {"training_iteration": epoch, "value": value}
        stops = self._rule.judge(key, epoch, value, loss)
        if is_last or stops:
            self._search.on_trial_complete(str(key), result)
        else:
            self._search.on_trial_result(str(key), result)
        return stops

    def epochs_at_the_end(self, epochs_of: dict[Any, int]) -> int:
        return 0


class Unguided:
    """Settings that do not depend on what came of those before, perhaps with halving."""

    def __init__(self, table: Table, seed: int, settings: Sequence[dict[str, Any]] | None, rule: PruningRule) -> None:
        """settings: None draws them at random."""
        self._searched = distributions(table.space, table.plan)
        self._study = optuna.create_study(sampler=RandomSampler(seed=seed))
        self._settings = None if settings is None else deque(settings)
        self._rule, self._numbers = rule, count()

    def next(self) -> tuple[Any, dict[str, Any]] | None:
        if self._settings is None:
            return next(self._numbers), self._study.ask(self._searched).params
        return (next(self._numbers), self._settings.popleft()) if self._settings else None

    def result(self, key: Any, epoch: int, value: float, loss: float, is_last: bool) -> bool:
        return self._rule.judge(key, epoch, value, loss)

    def epochs_at_the_end(self, epochs_of: dict[Any, int]) -> int:
        return 0


class MedianStopping:
    """Stops a trial whose best is below the median of the others' running means (Golovin et al., Google Vizier)."""

    def __init__(self, grace_epochs: int) -> None:
        self._grace, self._values = grace_epochs, dict[int, list[float]]()

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        self._values.setdefault(number, []).append(value)
        others = [np.mean(seen[:epoch]) for key, seen in self._values.items() if key != number and len(seen) >= epoch]
        return epoch >= self._grace and len(others) >= 3 and value < float(np.median(others))


class Pasha:
    """PASHA (Bohdal et al., https://arxiv.org/abs/2207.06940): halving whose last step grows while ranks change.

    Two neighbours in the ranking count as equal where they are closer than the noise.
    """

    NOISE = 0.02

    def __init__(self, epochs: int, grace_epochs: int, factor: float) -> None:
        self._steps = [grace_epochs]
        while self._steps[-1] * factor < epochs:
            self._steps.append(math.ceil(self._steps[-1] * factor))
        self._steps.append(epochs)
        self._factor, self._open = factor, min(1, len(self._steps) - 1)
        self._values: dict[int, dict[int, float]] = {step: {} for step in self._steps}

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        if epoch not in self._values:
            return False
        others = list(self._values[epoch].values())
        self._values[epoch][number] = value
        place = self._steps.index(epoch)
        if place == self._open:
            self._grow()
        if place >= self._open:
            return True
        return bool(others) and value < np.percentile(others, (1 - 1 / self._factor) * 100)

    def _grow(self) -> None:
        last, before = self._values[self._steps[self._open]], self._values[self._steps[self._open - 1]]
        both = sorted(last, key=lambda number: last[number])
        unlike = any(before[worse] > before[better] + self.NOISE for worse, better in pairwise(both))
        if unlike and self._open < len(self._steps) - 1:
            self._open += 1


def _with_rule(make: Callable[[int], PruningRule]) -> type[Steered]:
    class Other(Steered):
        def rule(self, epochs: int, own: PruningRule) -> PruningRule:
            return make(epochs)

    return Other


def _guides(table: Table) -> list[dict[str, Any]]:
    """Returns the guide's settings in terms of a table; what the guide does not speak of is the reference's."""
    reference = start_points(table.space, table.plan)[0]
    found = []
    for batch, max_norm in GUIDES:
        advice = {"effective_batch": batch, "max_norm": max_norm}
        known = {name: table.space.space[name].nearest(value) for name, value in advice.items() if name in reference}
        found.append({**reference, **known})
    return found


METHODS: dict[str, Callable[[Table, int], Method]] = {
    "default": Steered,
    "stock": Stock,
    "random-halving": lambda table, seed: Unguided(table, seed, None, RayAsha(table.epochs, 1, 4.0)),
    "random": lambda table, seed: Unguided(table, seed, None, NoPruning()),
    "guide": lambda table, seed: Unguided(table, seed, _guides(table), NoPruning()),
    "previous": Previous,
    "previous-starts": lambda table, seed: Previous(table, seed, starts=True),
    "learned": lambda table, seed: Steered(table, seed, pasts=table.pasts),
    "no-starts": lambda table, seed: Steered(table, seed, starts=False),
    "no-baseline": lambda table, seed: Steered(table, seed, baseline=False),
    "tpe": lambda table, seed: Steered(table, seed, sampler="tpe"),
    "gp": lambda table, seed: Steered(table, seed, sampler="gp"),
    "random-starts": lambda table, seed: Steered(table, seed, sampler="random"),
    "ray-asha": lambda table, seed: Steered(table, seed, pruning="ray-asha"),
    "no-pruning": lambda table, seed: Steered(table, seed, pruning="none"),
    "grace-2-factor-3": lambda table, seed: Steered(table, seed, grace_epochs=2, reduction_factor=3.0),
    "factor-3": lambda table, seed: Steered(table, seed, reduction_factor=3.0),
    "median": lambda table, seed: _with_rule(lambda epochs: MedianStopping(math.ceil(epochs / 4)))(table, seed),
    "pasha": lambda table, seed: _with_rule(lambda epochs: Pasha(epochs, math.ceil(epochs / 4), 2.0))(table, seed),
}


@dataclass(frozen=True)
class Course:
    """How a search went: after each epoch of its budget the best so far, what that setting comes to, and the trials.

    late: the epochs that the search would still train at its end, given each budget.
    """

    best: Floats
    final: Floats
    trials: Floats
    late: Floats


def play(table: Table, method: Method, budget: int, workers: int) -> Course:
    """Plays a search until `budget` epochs were trained, with `workers` trainings side by side."""
    used = np.zeros(len(table.settings), dtype=bool)
    places: dict[Any, int] = {}  # trial -> its setting's place in the table
    epochs_of: dict[Any, int] = {}
    running: list[tuple[float, int, Any]] = []
    order, now, best, best_place = count(), 0.0, 0.0, 0
    course: list[tuple[float, float, int, int]] = []

    def begin_epoch(key: Any) -> None:
        heapq.heappush(running, (now + table.seconds[places[key], epochs_of[key]], next(order), key))

    while len(course) < budget:
        while len(running) < workers and (found := method.next()) is not None:
            key, setting = found
            if key not in places:
                if used.all():
                    break
                point = _points(table.space, [setting])[0] * table.weights
                apart = ((table.points - point) ** 2).sum(axis=1)
                apart[used] = np.inf
                places[key], epochs_of[key] = int(apart.argmin()), 0
                used[places[key]] = True
            begin_epoch(key)
        if not running:
            break
        now, _, key = heapq.heappop(running)
        place, epoch = places[key], epochs_of[key] + 1
        epochs_of[key] = epoch
        value = float(table.best_so_far[place, epoch - 1])
        if value > best:
            best, best_place = value, place
        stops = method.result(key, epoch, value, float(table.losses[place, epoch - 1]), epoch == table.epochs)
        if not stops and epoch < table.epochs:
            begin_epoch(key)
        final = float(table.best_so_far[best_place, -1])
        course.append((best, final, len(places), method.epochs_at_the_end(epochs_of)))
    course += [course[-1]] * (budget - len(course))
    return Course(*np.array(course).T)


def one_seed(job: tuple[Table, str, int, int, int]) -> tuple[Floats, Floats, Floats]:
    """Returns a method's best, final accuracy and trials after each epoch, what it does at its end included."""
    table, name, seed, budget, workers = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    part = table.part(seed)
    course = play(part, METHODS[name](part, seed), budget, workers)
    spent = np.arange(budget) - course.late.astype(int)  # how far it is when only its end is left
    reached = np.clip(spent, 0, None)
    return np.where(spent >= 0, course.best[reached], 0.0), course.final[reached], course.trials[reached]


def summary(
    table: Table, name: str, workers: int, budgets: Sequence[int], found: Sequence[Any], stock: Sequence[Any]
) -> list[dict[str, Any]]:
    """Returns a line for each budget."""
    best, final, trials = (np.array(values) for values in zip(*found, strict=True))
    stocks = np.array([values[0] for values in stock])
    mark = stocks[:, STOCK_BUDGET - 1].mean()
    reached = np.flatnonzero(best.mean(axis=0) >= mark - 1e-9)
    lines = []
    for budget in budgets:
        values, against = best[:, budget - 1], best[:, budget - 1] - stocks[:, budget - 1]
        lines.append(
            {
                "table": table.name,
                "method": name,
                "budget": budget,
                "workers": workers,
                "seeds": len(values),
                "best_mean": round(float(values.mean()), 5),
                "best_se": round(float(values.std(ddof=1) / math.sqrt(len(values))), 5) if len(values) > 1 else None,
                "best_sd": round(float(values.std(ddof=1)), 5) if len(values) > 1 else None,
                "final_mean": round(float(final[:, budget - 1].mean()), 5),
                "trials_mean": round(float(trials[:, budget - 1].mean()), 2),
                "epochs_to_stock_256": int(reached[0]) + 1 if len(reached) else None,
                "minus_stock": round(float(against.mean()), 5),
                "p_against_stock": float(f"{wilcoxon(against).pvalue:.3g}") if np.any(against) else None,
            }
        )
    return lines


def main() -> None:
    """Reads the command line, plays, prints a JSON line per table, method and budget."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, metavar="CSV")
    parser.add_argument("--methods", nargs="*", default=[], choices=list(METHODS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--budgets", nargs="+", type=int, default=[32, 64, 128, 256])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--optimizer", choices=["adamw", "sgd"])
    parser.add_argument("--pretrained", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    budget = max(*arguments.budgets, STOCK_BUDGET)
    names = list(dict.fromkeys(["stock", *ALWAYS, *arguments.methods]))
    out = arguments.out.open("a", encoding="utf-8") if arguments.out is not None else None
    with Pool(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) as pool:
        tables = [read_table(path, arguments.optimizer, arguments.pretrained) for path in arguments.tables]
        for table in tables:
            others = [other for other in tables if other is not table and other.optimizer == table.optimizer]
            table = replace(table, pasts=tuple(other.as_past for other in others))
            print(
                f"{table.name}: {len(table.settings)} settings of {table.epochs} epochs, "
                f"{table.optimizer} ({len(others)} more tables of it); the nearest other setting tells an accuracy to "
                f"{table.error_weighted:.4f} (axes alike: {table.error_plain:.4f})",
                file=sys.stderr,
            )
            stock: list[Any] = []
            for name in names:
                began = time.perf_counter()
                jobs = [(table, name, seed, budget, arguments.workers) for seed in range(arguments.seeds)]
                found = pool.map(one_seed, jobs, chunksize=max(1, len(jobs) // 16))
                stock = stock or found
                for line in summary(table, name, arguments.workers, arguments.budgets, found, stock):
                    print(json.dumps(line), flush=True)
                    if out is not None:
                        out.write(json.dumps(line) + "\n")
                        out.flush()
                print(f"{table.name}, {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
