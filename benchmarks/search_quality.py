"""How good a setting does a search find within so many epochs?

Ours against random search, the guide's fixed settings and stock Ray Tune.

    python benchmarks/search_quality.py --data DIR --out OUT [--seeds 5] [--jobs 4] [--per-class 100]
        [--image-size 48] [--epochs 8] [--budget 96]

Methods, all over the same space and one trial at a time: `ours` (this project's search), `random` (random settings,
each trained to its end), `sweep` (the five settings of the guide's "Hyperparameter Recommendations", each trained to
its end) and `stock` (Ray's OptunaSearch and ASHA as they come). A seed stands for a split, a sampler and the trials'
own randomness; every method meets the same ones. Epochs are counted in the order in which they were trained, pruned
trials' too, and a method's result after B epochs is the best validation accuracy among its first B.

One JSON line per method and seed in OUT/search_quality.jsonl; OUT/search_quality.csv holds the same, OUT/summary.csv
the means and spreads.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from environment import environment

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig
from tune_cropshield.data.dataset import DeviceData, LeafData, open_data
from tune_cropshield.training.run_folder import read_metrics

METHODS = ("ours", "random", "sweep", "stock")
SPACE = """
[trial]
model = "tiny_cnn"
image_size = {image_size}
augment = "conservative"
schedule = "onecycle"
[data]
val_share = 0.2
split_seed = {seed}
[space]
lr = {{log = [1e-5, 3e-2]}}
max_norm = {{choice = ["none", 0.5, 1.0, 2.0, 5.0]}}
weight_decay = {{log = [1e-5, 1e-1]}}
effective_batch = {{choice = [16, 32, 64]}}
[search]
trials = {trials}
epochs = {epochs}
grace_epochs = 2
reduction_factor = 3
seed = {seed}
"""
GUIDES_LR = GUIDES_WEIGHT_DECAY = 1e-4
# (micro-batch, accumulation, max_norm): RTX 4060, custom CNN and EfficientNet twice; RTX 3050, custom CNN and
# EfficientNet
GUIDES_SETTINGS = ((32, 1, "none"), (16, 2, "none"), (16, 4, 1.0), (16, 2, "none"), (8, 4, 1.0))


def trial_settings(arguments: argparse.Namespace, **searched: Any) -> RunConfig:
    """Returns the settings of one training."""
    trial = TrialConfig.model_validate(
        {
            "model": "tiny_cnn",
            "image_size": arguments.image_size,
            "augment": "conservative",
            "schedule": "onecycle",
            "epochs": arguments.epochs,
            "seed": arguments.one_seed,
            "threads": 1,
            **searched,
        }
    )
    return RunConfig(data=data_settings(arguments), trial=trial)


def data_settings(arguments: argparse.Namespace) -> DataConfig:
    """Returns which photographs, split by the seed."""
    return DataConfig(dir=str(arguments.data.absolute()), val_share=0.2, split_seed=arguments.one_seed)


def sweep(arguments: argparse.Namespace, leaves: LeafData, out: Path) -> None:
    """Trains the guide's five settings, one after another."""
    import torch

    from tune_cropshield.training.loop import run_trial

    data = DeviceData(leaves, torch.device("cpu"))
    for number, (micro, accumulation, max_norm) in enumerate(GUIDES_SETTINGS):
        pair = {"effective_batch": micro * accumulation, "micro_batch": micro, "accumulation": accumulation}
        run = trial_settings(arguments, lr=GUIDES_LR, weight_decay=GUIDES_WEIGHT_DECAY, max_norm=max_norm, **pair)
        run_trial(run, data, out / f"t{number:03d}", report=lambda report: None)


def random_search(arguments: argparse.Namespace, leaves: LeafData, out: Path) -> None:
    """Trains random settings of the space to their ends, as many as the budget holds."""
    import torch
    from optuna.samplers import RandomSampler

    from tune_cropshield.search.journal import open_study
    from tune_cropshield.training.loop import run_trial

    data, study = DeviceData(leaves, torch.device("cpu")), open_study(out, RandomSampler(seed=arguments.one_seed))
    for number in range(math.ceil(arguments.budget / arguments.epochs)):
        searched = study.ask(distributions(arguments, out)).params
        run_trial(trial_settings(arguments, **searched), data, out / f"t{number:03d}", report=lambda report: None)


def ours(arguments: argparse.Namespace, leaves: LeafData, out: Path) -> None:
    """Runs this project's own search."""
    from tune_cropshield.memory.choose.pairs import plan_for_cpu
    from tune_cropshield.search.context import begin_search
    from tune_cropshield.search.prepare import Prepared
    from tune_cropshield.search.resources import Resources
    from tune_cropshield.search.run import run_search
    from tune_cropshield.search.trial_settings import effective_batches
    from tune_cropshield.search.views.view import SearchView

    space = searched_space(arguments, out)
    plan, resources = plan_for_cpu(effective_batches(space)), Resources("cpu", 1, 0, 1, 1, 1, 0)
    found = Prepared(space, leaves, plan, resources, None, out)
    run_search(begin_search(found, out, SearchView(), resume=False, command=["search_quality"]))


def stock(arguments: argparse.Namespace, leaves: LeafData, out: Path) -> None:
    """Runs Ray Tune's own OptunaSearch and ASHA, with the grace, the factor and the number of trials of ours."""
    from tune_cropshield.search.ray_runtime import ray_runtime

    with ray_runtime(1, 0, None):
        from ray import tune
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search import ConcurrencyLimiter
        from ray.tune.search.optuna import OptunaSearch

        def train(config: dict[str, Any]) -> None:
            import torch

            from tune_cropshield.training.loop import run_trial

            name = f"s{time.time_ns()}"  # one at a time: the order in which they began
            run = trial_settings(arguments, **config)
            data = DeviceData(leaves, torch.device("cpu"))
            run_trial(
                run,
                data,
                out / name,
                lambda report: tune.report({"val_acc": report.metrics.val_acc, "epoch": report.metrics.epoch}),
            )

        search = OptunaSearch(distributions(arguments, out), metric="val_acc", mode="max", seed=arguments.one_seed)
        halving = ASHAScheduler(
            "epoch", metric="val_acc", mode="max", max_t=arguments.epochs, grace_period=2, reduction_factor=3
        )
        with tempfile.TemporaryDirectory() as results:
            tune.Tuner(
                tune.with_resources(train, {"cpu": 1}),
                tune_config=tune.TuneConfig(
                    search_alg=ConcurrencyLimiter(search, 1), scheduler=halving, num_samples=num_trials(arguments)
                ),
                run_config=tune.RunConfig(storage_path=results, verbose=0),
            ).fit()
    for number, folder in enumerate(sorted(out.glob("s[0-9]*"))):
        folder.rename(out / f"t{number:03d}")


def num_trials(arguments: argparse.Namespace) -> int:
    """Returns how many trials a search that prunes may start: so many that they need the whole budget even if all but
    the first stop at once.
    """
    return math.ceil((arguments.budget - arguments.epochs) / 2) + 1


def searched_space(arguments: argparse.Namespace, out: Path) -> Any:
    """Returns the space that all methods search."""
    from tune_cropshield.config.space import load_space

    file = out / "space.toml"
    text = SPACE.format(
        image_size=arguments.image_size, seed=arguments.one_seed, trials=num_trials(arguments), epochs=arguments.epochs
    )
    file.write_text(text)
    return load_space(file, {"data": {"dir": str(arguments.data.absolute())}})


def distributions(arguments: argparse.Namespace, out: Path) -> dict[str, Any]:
    """Returns the space as Optuna knows it."""
    return {name: domain.distribution() for name, domain in searched_space(arguments, out).space.items()}


def curve(out: Path) -> list[float]:
    """Returns the validation accuracy of each epoch in the order of training; with one trial at a time that is the
    trials' order.
    """
    return [line["val_acc"] for folder in sorted(out.glob("t[0-9]*")) for line in read_metrics(folder)]


def run_one(arguments: argparse.Namespace) -> None:
    """Runs one method with one seed in this process and prints the accuracies it met, in order."""
    with tempfile.TemporaryDirectory(prefix="quality-") as folder:
        out = Path(folder) / "out"
        out.mkdir()
        leaves = open_data(data_settings(arguments), {arguments.image_size}, arguments.cache)
        started = time.perf_counter()
        {"ours": ours, "random": random_search, "sweep": sweep, "stock": stock}[arguments.one](arguments, leaves, out)
        accuracies = curve(out)
        seconds, trials = round(time.perf_counter() - started, 1), len(list(out.glob("t[0-9]*")))
        print("RESULT " + json.dumps({"seconds": seconds, "trials": trials, "accuracies": accuracies}))


def best_within(accuracies: list[float], epochs: int) -> float:
    """Returns the best of the first so many epochs."""
    return max(accuracies[:epochs])


def epochs_to_reach(accuracies: list[float], target: float, budget: int) -> int | None:
    """Returns after how many epochs `target` was reached, None where it was not within the budget."""
    return next((number for number, accuracy in enumerate(accuracies[:budget], 1) if accuracy >= target), None)


def some_photographs(source: Path, folder: Path, per_class: int) -> Path:
    """Copies the first so many photographs of each class."""
    for label in sorted(path for path in source.iterdir() if path.is_dir()):
        (folder / label.name).mkdir(parents=True)
        for picture in sorted(label.iterdir())[:per_class]:
            shutil.copyfile(picture, folder / label.name / picture.name)
    return folder


def in_another_process(
    arguments: argparse.Namespace, method: str, seed: int, data: Path, cache: Path
) -> dict[str, Any]:
    """Returns what one method with one seed came to."""
    own = [
        "--one",
        method,
        "--one-seed",
        str(seed),
        "--data",
        str(data),
        "--cache",
        str(cache),
        "--out",
        str(arguments.out),
    ]
    same = [f"--{name.replace('_', '-')}={getattr(arguments, name)}" for name in ("image_size", "epochs", "budget")]
    threads = {"OMP_NUM_THREADS": "1", "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, *own, *same],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **threads},
    )
    results = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not results:
        raise RuntimeError(f"{method} with seed {seed} failed:\n{done.stderr[-2000:]}")
    return {"method": method, "seed": seed, **json.loads(results[-1])}


def told(
    results: list[dict[str, Any]], arguments: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns a row per method and seed, and a row per method: mean and standard deviation over the seeds."""
    swept = arguments.epochs * len(GUIDES_SETTINGS)
    targets = {
        result["seed"]: best_within(result["accuracies"], swept) for result in results if result["method"] == "sweep"
    }
    rows = [
        {
            "method": result["method"],
            "seed": result["seed"],
            "trials": result["trials"],
            "epochs": len(result["accuracies"]),
            f"best_after_{swept}": best_within(result["accuracies"], swept),
            f"best_after_{arguments.budget}": best_within(result["accuracies"], arguments.budget),
            "epochs_to_sweeps_best": epochs_to_reach(result["accuracies"], targets[result["seed"]], arguments.budget),
            "seconds": result["seconds"],
        }
        for result in sorted(results, key=lambda result: (result["method"], result["seed"]))
    ]
    summary = []
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        line: dict[str, Any] = {"method": method, "seeds": len(own)}
        for name in (f"best_after_{swept}", f"best_after_{arguments.budget}"):
            values = [row[name] for row in own]
            line |= {
                f"{name}_mean": round(statistics.mean(values), 4),
                f"{name}_sd": round(statistics.stdev(values), 4) if len(values) > 1 else None,
            }
        reached = [row["epochs_to_sweeps_best"] for row in own if row["epochs_to_sweeps_best"] is not None]
        line |= {
            "reached_sweeps_best": len(reached),
            "epochs_to_it_mean": round(statistics.mean(reached), 1) if reached else None,
        }
        line |= {"epochs_to_it_sd": round(statistics.stdev(reached), 1) if len(reached) > 1 else None}
        summary.append(line)
    return rows, summary


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Writes rows as a table."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Runs every method with every seed, so many at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="processes at once, one thread each")
    parser.add_argument("--per-class", type=int, default=100, help="photographs of each class")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=8, help="of a training that is not stopped")
    parser.add_argument("--budget", type=int, default=96, help="epochs that a method may train in all")
    parser.add_argument("--one", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--one-seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run_one(arguments)
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="quality-data-") as folder, ThreadPoolExecutor(arguments.jobs) as pool:
        data = some_photographs(arguments.data, Path(folder) / "leaves", arguments.per_class)
        cases = [(method, seed) for seed in range(arguments.seeds) for method in METHODS]
        waiting = [
            pool.submit(in_another_process, arguments, method, seed, data, Path(folder) / "cache")
            for method, seed in cases
        ]
        results = []
        with open(arguments.out / "search_quality.jsonl", "w", encoding="utf-8") as lines:
            for each in waiting:
                results.append(each.result())
                line = json.dumps({**results[-1], **environment()})
                lines.write(line + "\n")
                lines.flush()
                print(line, flush=True)
    rows, summary = told(results, arguments)
    write_csv(arguments.out / "search_quality.csv", rows)
    write_csv(arguments.out / "summary.csv", summary)
    for row in summary:
        print(json.dumps(row))


if __name__ == "__main__":
    main()
