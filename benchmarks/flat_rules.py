"""Which rule ends a search when more trials are not worth it, and not before? Played on recorded trainings.

    python benchmarks/flat_rules.py CSV... [--seeds 60] [--trials 40 100] [--photographs 281] [--gp-seeds 6]
        [--no-starts]

The search as it comes (see replay.py), or without starting points, is played with so many trials; after each that ends,
every rule is asked whether it would end the search there. All rules compare what they expect to gain with one noise,
the standard error of the best accuracy on so many validation photographs, and none may end a search before 20 trials:

- `flat`: the product's, what half as many trials again are expected to gain (search/flat.py);
- `next`: what one trial more is expected to gain, 1 / n of the way from the second best to the best;
- `stagnation`: what the last third of the trials has gained (as Optuna's BestValueStagnationEvaluator asks for any);
- `regret`, `emmr`: Optuna's RegretBoundEvaluator (the default of its Terminator) and EMMREvaluator, Gaussian processes
  over all trials, asked after every fifth trial and with the first --gp-seeds seeds only.

One JSON line per table, number of trials and rule: trials when it ends, the share of the search's epochs that it saves,
and how much best accuracy it loses against the whole search (mean and standard deviation over seeds, in points).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.terminator import EMMREvaluator, RegretBoundEvaluator
from replay import Steered, Table, play, read_table

from tune_cropshield.search.flat import FEWEST_TRIALS, ended_values, outlook


def next_gain(values: Sequence[float], study: optuna.Study) -> float:
    """Returns what one trial more gains, were all drawn alike: the n-th is the best of n one time in n."""
    second, best = sorted(values)[-2:]
    return (best - second) / len(values)


def last_thirds_gain(values: Sequence[float], study: optuna.Study) -> float:
    """Returns what the last third of the trials has gained."""
    return max(values) - max(values[: len(values) - len(values) // 3])


def regret(values: Sequence[float], study: optuna.Study) -> float:
    """Returns Optuna's upper bound of what the best setting of the space is better than the best trial."""
    return float(RegretBoundEvaluator(seed=0).evaluate(_as_complete(study), StudyDirection.MAXIMIZE))


def expected_regret(values: Sequence[float], study: optuna.Study) -> float:
    """Returns Optuna's expected minimum model regret, which it gives in standard deviations of the values."""
    spread = float(np.std(values))
    return spread * float(EMMREvaluator(seed=0).evaluate(_as_complete(study), StudyDirection.MAXIMIZE))


def _as_complete(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Returns every trial with a value as a complete one: the evaluators pass over pruned ones."""
    return [
        optuna.trial.create_trial(
            params=trial.params, distributions=trial.distributions, value=max(trial.intermediate_values.values())
        )
        for trial in study.get_trials(deepcopy=False)
        if trial.intermediate_values
    ]


CHEAP: dict[str, Callable[[Sequence[float], optuna.Study], float]] = {"next": next_gain, "stagnation": last_thirds_gain}
GAUSSIAN: dict[str, Callable[[Sequence[float], optuna.Study], float]] = {"regret": regret, "emmr": expected_regret}


class Watched(Steered):
    """The search as it comes, with rules that look on: {rule: (trials, epochs, best accuracy) when it ends it}."""

    def __init__(self, table: Table, seed: int, photographs: int, with_gp: bool, **search: Any) -> None:
        super().__init__(table, seed, **search)
        self._photographs, self._with_gp = photographs, with_gp
        self.ends: dict[str, tuple[int, int, float]] = {}
        self.epochs, self.best, self.trials = 0, 0.0, 0

    def result(self, key: Any, epoch: int, value: float, loss: float, is_last: bool) -> bool:
        stops = super().result(key, epoch, value, loss, is_last)
        self.epochs, self.best = self.epochs + 1, max(self.best, value)
        if stops or is_last:
            values = ended_values(self._study)
            if len(values) > self.trials:  # one that was gone on with has ended before
                self.trials = len(values)
                self._ask(values)
        return stops

    def _ask(self, values: list[float]) -> None:
        found = outlook(values, self._photographs)
        if found is None:
            return
        gains = {"flat": found.gain} if "flat" not in self.ends else {}
        gains |= {name: rule(values, self._study) for name, rule in CHEAP.items() if name not in self.ends}
        if self._with_gp and len(values) % 5 == 0:
            gains |= {name: rule(values, self._study) for name, rule in GAUSSIAN.items() if name not in self.ends}
        for name, gain in gains.items():
            if gain < found.noise:
                self.ends[name] = (len(values), self.epochs, self.best)


def one_seed(job: tuple[Table, int, int, int, bool, bool]) -> dict[str, tuple[int, float, float]]:
    """Returns {rule: (trials when it ends the search, share of the epochs saved, points lost)}."""
    table, seed, trials, photographs, with_gp, starts = job
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    part = table.part(seed)
    search = Watched(part, seed, photographs, with_gp, trials=trials, starts=starts)
    play(part, search, trials * table.epochs, 1)
    whole = (search.trials, search.epochs, search.best)
    ends = {name: search.ends.get(name, whole) for name in ("flat", *CHEAP, *(GAUSSIAN if with_gp else ()))}
    return {
        name: (count, 1 - epochs / search.epochs, 100 * (search.best - best))
        for name, (count, epochs, best) in ends.items()
    }


def main() -> None:
    """Plays, and prints a line per table, number of trials and rule."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", type=Path, metavar="CSV")
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--trials", type=int, nargs="+", default=[40, 100])
    parser.add_argument("--photographs", type=int, default=281, help="that validated in the recorded trainings")
    parser.add_argument("--gp-seeds", type=int, default=6)
    parser.add_argument("--no-starts", dest="starts", action="store_false", help="without starting points")
    arguments = parser.parse_args()
    assert min(arguments.trials) > FEWEST_TRIALS
    with Pool(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) as pool:
        for path in arguments.tables:
            table = read_table(path, None, False)
            for trials in arguments.trials:
                jobs = [
                    (table, seed, trials, arguments.photographs, seed < arguments.gp_seeds, arguments.starts)
                    for seed in range(arguments.seeds)
                ]
                found = pool.map(one_seed, jobs, chunksize=1)
                for rule in ("flat", *CHEAP, *(GAUSSIAN if arguments.gp_seeds else ())):
                    counts, saved, lost = zip(*(ends[rule] for ends in found if rule in ends), strict=True)
                    line = {"table": table.name, "trials": trials, "starts": arguments.starts, "rule": rule}
                    line |= {"seeds": len(counts)}
                    line |= {"ends_after_trials_mean": round(statistics.mean(counts), 1)}
                    line |= {"epochs_saved_mean": round(statistics.mean(saved), 3)}
                    line |= {"points_lost_mean": round(statistics.mean(lost), 2)}
                    line |= {"points_lost_sd": round(statistics.stdev(lost), 2)}
                    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
