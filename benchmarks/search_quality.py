"""How good a network does a search leave after so many epochs of training? Live, seed by seed, at equal epochs.

    python benchmarks/search_quality.py --data LEAVES --out OUT [--seeds 10] [--jobs 2]                   # 2 cores
    python benchmarks/search_quality.py --data LEAVES --out OUT --space efficientnet_b0.toml --image-size 160
        --device cuda --methods default stock --seeds 3                                                   # a GPU

Methods, all over the same space, one trial at a time, with the same training loop:

- `default`: this project's search, as it comes: sampler, pruning, starting points, the reference setting;
- `stock`: what Ray Tune's OptunaSearch proposes and its ASHAScheduler stops, both with their defaults;
- `random`: random settings, each trained to its end.

A seed stands for photographs (which train, which validate, which are only tested on), a sampler and the trials' own
randomness. The default search runs to its end, with `--trials` trials; the others then train as many epochs as it did,
and what they had under way is cut off. Weights are never pretrained. A result is the best validation accuracy among the
epochs trained so far, and at the end the accuracy of that epoch's weights on the test photographs, of which no search
knows anything.

One JSON line per method and seed, and one per method and number of epochs: means, standard errors, and how much the
default search is ahead, with the two-sided p of the exact sign-flip permutation test over the seeds. All of them are in
OUT/search_quality.jsonl too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import count, product
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, Protocol

from environment import environment

from tune_cropshield.config.places import cache_dir, find_space
from tune_cropshield.config.settings import RunConfig
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.training.clock import read_times
from tune_cropshield.training.run_folder import best_epoch, read_metrics

DEFAULT, STOCK, RANDOM = METHODS = ("default", "stock", "random")
ROOT = Path(__file__).resolve().parents[1]


class Proposer(Protocol):
    """What says which setting comes next, and when its training stops."""

    def suggest(self, number: int) -> dict[str, Any]:
        """Returns the parameters of trial `number`."""

    def should_stop(self, number: int, epoch: int, val_acc: float) -> bool:
        """Takes in an epoch's accuracy, and tells whether the trial stops."""

    def ended(self, number: int, last: dict[str, Any] | None) -> None:
        """Takes in that a trial has ended, with its last result; None where it failed."""


class RandomSettings:
    """Random settings, each trained to its end."""

    def __init__(self, distributions: dict[str, Any], epochs: int, seed: int) -> None:
        import optuna

        self._study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
        self._distributions = distributions

    def suggest(self, number: int) -> dict[str, Any]:
        return dict(self._study.ask(self._distributions).params)

    def should_stop(self, number: int, epoch: int, val_acc: float) -> bool:
        return False

    def ended(self, number: int, last: dict[str, Any] | None) -> None:
        pass


class StockRayTune:
    """Ray Tune's OptunaSearch and ASHAScheduler as they come, told what Ray Tune's controller would tell them."""

    def __init__(self, distributions: dict[str, Any], epochs: int, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        self._search = OptunaSearch(distributions, metric="val_acc", mode="max", seed=seed)
        self._halving = ASHAScheduler(metric="val_acc", mode="max", max_t=epochs)

    def suggest(self, number: int) -> dict[str, Any]:
        self._halving.on_trial_add(None, _ray_trial(number))
        return dict(self._search.suggest(str(number)))

    def should_stop(self, number: int, epoch: int, val_acc: float) -> bool:
        result = {"val_acc": val_acc, "training_iteration": epoch}
        if self._halving.on_trial_result(None, _ray_trial(number), result) == ASHA_STOPS:
            return True
        self._search.on_trial_result(str(number), result)
        return False

    def ended(self, number: int, last: dict[str, Any] | None) -> None:
        if last is None:
            self._search.on_trial_complete(str(number), error=True)
            return
        self._halving.on_trial_complete(None, _ray_trial(number), last)
        self._search.on_trial_complete(str(number), result=last)


ASHA_STOPS = "STOP"  # ray.tune.schedulers.TrialScheduler.STOP


def _ray_trial(number: int) -> Any:
    """Returns what the scheduler wants to know of a trial."""
    return SimpleNamespace(trial_id=str(number))


PROPOSERS: dict[str, Callable[[dict[str, Any], int, int], Proposer]] = {STOCK: StockRayTune, RANDOM: RandomSettings}


def searched_tables(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the tables of the space that all methods search: a file's, with what was asked for over it."""
    tables = read_toml(find_space(arguments.space))
    own = {"trials": arguments.trials, "epochs": arguments.epochs, "device": arguments.device, "trials_per_gpu": 1}
    over = {
        "data": {"dir": str(arguments.data)},
        "trial": {"image_size": arguments.image_size, "pretrained": False},
        "search": {**own, "seed": arguments.one_seed},
    }
    return {**tables, **{name: {**tables.get(name, {}), **values} for name, values in over.items()}}


def searched_space(arguments: argparse.Namespace) -> SearchSpace:
    """Returns that space."""
    return space_from(searched_tables(arguments), {}, arguments.space)


def search_by_default(arguments: argparse.Namespace, out: Path) -> Path:
    """Runs this project's search to its end, and returns the folder of its best network."""
    from tune_cropshield import search

    found = search(space=searched_tables(arguments), out=out, from_scratch=True, progress=False)
    if found.best is None or found.stopped is not None:
        raise RuntimeError(f"the search ended early: {found.stopped}")
    return found.best.folder


def search_by(proposer: Proposer, arguments: argparse.Namespace, out: Path) -> Path:
    """Trains what `proposer` says, `arguments.budget` epochs in all, and returns the folder of the best network."""
    import torch

    from tune_cropshield.data.dataset import DeviceData, open_data
    from tune_cropshield.device import find_device
    from tune_cropshield.errors import DivergedError
    from tune_cropshield.search.trial_settings import EFFECTIVE_BATCH
    from tune_cropshield.training.loop import trial_epochs

    space, epochs_left = searched_space(arguments), arguments.budget
    leaves = open_data(space.data, {arguments.image_size}, cache_dir())
    data = DeviceData(leaves, torch.device(find_device(arguments.device)))
    for number in count():
        parameters, last, folder = proposer.suggest(number), None, out / f"t{number:03d}"
        batch = parameters.get(EFFECTIVE_BATCH, space.trial_config().effective_batch)
        settings = space.trial_config({**parameters, "micro_batch": batch, "accumulation": 1, "threads": 1})
        try:
            with closing(trial_epochs(RunConfig(data=space.data, trial=settings), data, folder)) as epochs:
                for report in epochs:
                    epoch, val_acc = report.metrics.epoch, report.metrics.val_acc
                    last = {"val_acc": val_acc, "training_iteration": epoch}
                    epochs_left -= 1
                    if not epochs_left:
                        return max(out.glob("t[0-9]*"), key=_best_accuracy)
                    if proposer.should_stop(number, epoch, val_acc):
                        break
        except DivergedError:
            last = None
        proposer.ended(number, last)
    raise AssertionError("count ends nowhere")


def _best_accuracy(folder: Path) -> float:
    best = best_epoch(read_metrics(folder))
    return -1.0 if best is None else float(best["val_acc"])


def accuracies_in_order(out: Path) -> list[float]:
    """Returns the validation accuracy of each epoch of all trials, in the order in which they were trained."""
    trained = []
    for folder in out.glob("t[0-9]*"):
        ended = [line["ended"] for line in read_times(folder) if line["what"] == "epoch"]
        trained += list(zip(ended, (line["val_acc"] for line in read_metrics(folder)), strict=True))
    return [round(accuracy, 4) for _, accuracy in sorted(trained)]


def run_one(arguments: argparse.Namespace) -> None:
    """Runs one method with one seed in this process, and prints what came of it."""
    from tune_cropshield import evaluate

    out = arguments.out / "search"
    started = time.perf_counter()
    if arguments.one == DEFAULT:
        best = search_by_default(arguments, out)
    else:
        space = searched_space(arguments)
        distributions = {name: domain.distribution() for name, domain in space.space.items()}
        best = search_by(PROPOSERS[arguments.one](distributions, arguments.epochs, arguments.one_seed), arguments, out)
    seconds = time.perf_counter() - started
    result = {
        "seconds": round(seconds, 1),
        "trials": len(list(out.glob("t[0-9]*"))),
        "test_acc": round(evaluate(best, split="test").accuracy, 4),
        "accuracies": accuracies_in_order(out),
    }
    print("RESULT " + json.dumps(result))


def split_photographs(source: Path, folder: Path, seed: int, train: int, val: int) -> Path:
    """Copies so many photographs of each class to train and to validate, all others to test, drawn by the seed."""
    draw = random.Random(seed)
    for label in sorted(path for path in source.iterdir() if path.is_dir()):
        pictures = sorted(label.iterdir())
        draw.shuffle(pictures)
        parts = {"train": pictures[:train], "val": pictures[train : train + val], "test": pictures[train + val :]}
        for part, chosen in parts.items():
            (folder / part / label.name).mkdir(parents=True)
            for picture in chosen:
                shutil.copyfile(picture, folder / part / label.name / picture.name)
    return folder


def in_another_process(
    arguments: argparse.Namespace, method: str, seed: int, data: Path, place: int, budget: int
) -> dict[str, Any]:
    """Returns what one method with one seed came to. place: which core, or which GPU, it has for itself."""
    names = ("space", "image_size", "epochs", "trials", "device")
    same = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in names]
    with tempfile.TemporaryDirectory(prefix="quality-", ignore_cleanup_errors=True) as folder:
        own = ["--one", method, "--one-seed", str(seed), "--budget", str(budget), "--place", str(place)]
        done = subprocess.run(
            [sys.executable, __file__, *own, *same, "--data", str(data), "--out", folder],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,  # no search finds what another has learned
            env={**os.environ, **environment_of(arguments, place, data.parent)},
        )
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        raise RuntimeError(f"{method} with seed {seed} failed:\n{done.stderr[-2000:]}")
    return {"method": method, "seed": seed, **json.loads(results[-1])}


def environment_of(arguments: argparse.Namespace, place: int, cache: Path) -> dict[str, str]:
    """Returns a search's environment: one thread, a cache that all methods of the seed share, one GPU."""
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    own = {"OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(cache / "cache"), "PYTHONPATH": paths}
    return own | ({"CUDA_VISIBLE_DEVICES": str(place % arguments.gpus)} if arguments.device == "cuda" else {})


@contextmanager
def a_place(places: SimpleQueue[int]) -> Iterator[int]:
    """Inside, one of the places belongs to nobody else."""
    place = places.get()
    try:
        yield place
    finally:
        places.put(place)


def run_seed(
    arguments: argparse.Namespace, seed: int, places: SimpleQueue[int], told: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Returns what each method with this seed came to; the default search's epochs are the others' budget."""
    results: list[dict[str, Any]] = []
    with a_place(places) as place, tempfile.TemporaryDirectory(prefix="quality-data-") as folder:
        data = split_photographs(
            arguments.data, Path(folder) / "leaves", seed, arguments.train_per_class, arguments.val_per_class
        )
        budget = 0
        for method in (DEFAULT, *(name for name in METHODS if name != DEFAULT and name in arguments.methods)):
            results.append(in_another_process(arguments, method, seed, data, place, budget))
            told(results[-1])
            budget = budget or len(results[-1]["accuracies"])
    return results


def sign_flip_p(differences: Sequence[float]) -> float:
    """Returns the two-sided p of the exact paired permutation test: the share of all 2^n ways to give the differences
    a sign whose sum is at least as far from 0 as theirs.
    """
    observed = abs(sum(differences)) - 1e-12
    sums = [abs(sum(map(float.__mul__, differences, signs))) for signs in product((1.0, -1.0), repeat=len(differences))]
    return sum(each >= observed for each in sums) / len(sums)


def summary(results: Sequence[dict[str, Any]], budgets: Sequence[int]) -> list[dict[str, Any]]:
    """Returns a row per method and number of epochs; the last of each method is of all epochs."""
    rows = []
    by_method = {name: {line["seed"]: line for line in results if line["method"] == name} for name in METHODS}
    for method, lines in ((name, lines) for name, lines in by_method.items() if lines):
        ours = by_method[DEFAULT]
        for budget in (*budgets, None):
            best = {seed: max(line["accuracies"][:budget]) for seed, line in lines.items()}
            row = {"method": method, "budget": budget or "all", "seeds": len(lines), **_mean_and_error("best", best)}
            ahead = {seed: max(ours[seed]["accuracies"][:budget]) - value for seed, value in best.items()}
            row |= {"default_ahead": round(statistics.mean(ahead.values()), 4), "p": sign_flip_p(list(ahead.values()))}
            if budget is None:
                test = {seed: line["test_acc"] for seed, line in lines.items()}
                ahead = {seed: ours[seed]["test_acc"] - value for seed, value in test.items()}
                row |= _mean_and_error("test", test)
                row |= {"default_ahead_test": round(statistics.mean(ahead.values()), 4)}
                row |= {"p_test": sign_flip_p(list(ahead.values()))}
                row["epochs_mean"] = round(statistics.mean(len(line["accuracies"]) for line in lines.values()), 1)
                row["trials_mean"] = round(statistics.mean(line["trials"] for line in lines.values()), 1)
                row["seconds_mean"] = round(statistics.mean(line["seconds"] for line in lines.values()), 1)
            rows.append(row)
    return rows


def _mean_and_error(name: str, values: dict[int, float]) -> dict[str, float | None]:
    error = statistics.stdev(values.values()) / len(values) ** 0.5 if len(values) > 1 else None
    return {
        f"{name}_mean": round(statistics.mean(values.values()), 4),
        f"{name}_se": None if error is None else round(error, 4),
    }


def main() -> None:
    """Runs every method with every seed, so many seeds at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder of photographs per class")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--space", default="demo.toml", help="what is searched: a file, or a shipped one's name")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--gpus", type=int, default=1, help="with --device cuda: jobs take turns on so many")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="default always is one of them")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once; on the CPU each has a core")
    parser.add_argument("--trials", type=int, default=14, help="of the default search")
    parser.add_argument("--epochs", type=int, default=12, help="of a training that is not stopped")
    parser.add_argument("--budgets", type=int, nargs="*", default=(32, 64), help="results after so many epochs too")
    parser.add_argument("--train-per-class", type=int, default=50)
    parser.add_argument("--val-per-class", type=int, default=20)
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--one-seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--budget", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        if arguments.device == "cpu" and hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {cores[arguments.place % len(cores)]})
        run_one(arguments)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    places: SimpleQueue[int] = SimpleQueue()
    for place in range(arguments.jobs):
        places.put(place)
    with (
        open(arguments.out / "search_quality.jsonl", "w", encoding="utf-8") as lines,
        ThreadPoolExecutor(arguments.jobs) as pool,
    ):

        def tell(line: dict[str, Any]) -> None:
            text = json.dumps(line)
            lines.write(text + "\n")
            lines.flush()
            print(text, flush=True)

        machine = environment()
        waiting = [
            pool.submit(run_seed, arguments, seed, places, lambda result: tell({**result, **machine}))
            for seed in range(arguments.seeds)
        ]
        results = [result for each in waiting for result in each.result()]
        settings = {"space": arguments.space, "image_size": arguments.image_size, "epochs": arguments.epochs}
        for row in summary(results, arguments.budgets):
            tell({"benchmark": "search_quality", **row, **settings, **machine})


if __name__ == "__main__":
    main()
