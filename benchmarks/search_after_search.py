"""Does a search that knows an earlier one reach that one's winner in fewer trials, on other photographs?

    python benchmarks/search_after_search.py --data LEAVES --out OUT [--seeds 5] [--by classes|photographs]
        [--trials 12] [--epochs 8] [--space demo.toml] [--image-size 48] [--per-class 80] [--jobs 1]

A seed parts the classes, or the photographs of each, in two halves, and is the searches' own. The first half is
searched on. Then the winner's setting is trained on the other half: the accuracy that it gets there is what a second
search has to reach. Second searches, all over the same space, one trial at a time:

- `learned`: knows the first search (`--learn-from`);
- `from-scratch`: knows none, and begins with the space's starting points;
- `bare`: knows none, and has no starting points either.

One JSON line per seed and search in OUT/search_after_search.jsonl: how many trials and epochs it began and trained
until it was there (null: never), and its best accuracy. Then one line per search with the means, in which "never"
counts as one more than all of the search, and the two-sided p of the exact sign-flip permutation test of `learned`
against it. What lies in OUT is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from environment import environment
from search_quality import sign_flip_p

import tune_cropshield as tc
from tune_cropshield.config.places import find_space
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.training.clock import read_times
from tune_cropshield.training.run_folder import read_metrics

LEARNED, SCRATCH, BARE = METHODS = ("learned", "from-scratch", "bare")


def halves(source: Path, folder: Path, seed: int, by: str, per_class: int) -> tuple[Path, Path]:
    """Copies the two halves of the classes, or of each class's photographs, to two folders, and returns these."""
    draw, places = random.Random(seed), (folder / "first", folder / "second")
    if folder.exists():
        return places
    classes = sorted(path for path in source.iterdir() if path.is_dir())
    draw.shuffle(classes)
    for number, label in enumerate(classes):
        pictures = sorted(label.iterdir())
        draw.shuffle(pictures)
        parts = (pictures[:per_class], pictures[per_class : 2 * per_class])
        if by == "classes":
            parts = (parts[0], []) if number % 2 == 0 else ([], parts[0])
        for place, chosen in zip(places, parts, strict=True):
            for picture in chosen:
                (place / label.name).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(picture, place / label.name / picture.name)
    return places


def space_of(arguments: argparse.Namespace, seed: int) -> SearchSpace:
    """Returns the space that all searches of a seed have."""
    search = {"trials": arguments.trials, "epochs": arguments.epochs, "seed": seed, "trials_per_gpu": 1}
    over = {"search": {**search, "device": arguments.device}, "trial": {"image_size": arguments.image_size}}
    return load_space(find_space(arguments.space), {**over, "data": {"val_share": 0.2}})


def searched(space: SearchSpace, data: Path, out: Path, learn_from: Path | None = None) -> Path:
    """Runs a search, or goes on with it, and returns its folder."""
    if (out / "search.toml").exists():
        tc.search(out=out, resume=True, progress=False)
    elif learn_from is None:
        tc.search(space=space, data=data, out=out, from_scratch=True, progress=False)
    else:
        tc.search(space=space, data=data, out=out, learn_from=learn_from, progress=False)
    return out


def accuracy_of_winner(first: Path, data: Path, out: Path) -> float:
    """Returns the best accuracy of the first search's winning setting on other photographs."""
    if not (out / "metrics.jsonl").exists():
        tc.train(first / "best" / "config.toml", data=data, out=out, progress=False)
    return max(line["val_acc"] for line in read_metrics(out))


def reached(search: Path, target: float) -> dict[str, Any]:
    """Returns after how many trials and epochs a search had `target`, in the order in which it trained."""
    epochs = sorted(
        (line["ended"], folder.name, metrics["val_acc"])
        for folder in search.glob("t[0-9]*")
        for line, metrics in zip(
            (line for line in read_times(folder) if line["what"] == "epoch"), read_metrics(folder), strict=True
        )
    )
    there = next((place for place, (_, _, accuracy) in enumerate(epochs, 1) if accuracy >= target), None)
    began = {name for _, name, _ in epochs[:there]}
    found = {"trials": len(began) if there else None, "epochs": there, "best": max(epoch[2] for epoch in epochs)}
    return {**found, "all_trials": len({name for _, name, _ in epochs}), "all_epochs": len(epochs)}


def run_seed(arguments: argparse.Namespace, seed: int) -> list[dict[str, Any]]:
    """Returns a row per second search."""
    folder = arguments.out / f"seed{seed}"
    here, there = halves(arguments.data, folder / "photographs", seed, arguments.by, arguments.per_class)
    space = space_of(arguments, seed)
    first = searched(space, here, folder / "first")
    target = accuracy_of_winner(first, there, folder / "winner")
    rows = []
    for method in arguments.methods:
        own = space.model_copy(update={"start": ()}) if method == BARE else space
        search = searched(own, there, folder / method, first if method == LEARNED else None)
        rows.append({"seed": seed, "method": method, "target": target, **reached(search, target)})
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row per second search, over the seeds."""
    table: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        own = table.setdefault(row["method"], {"trials": [], "epochs": [], "best": []})
        for name in ("trials", "epochs"):
            own[name].append(row[f"all_{name}"] + 1 if row[name] is None else row[name])
        own["best"].append(row["best"])
    lines = []
    for method, own in table.items():
        line: dict[str, Any] = {"method": method, "seeds": len(own["best"])}
        for name, values in own.items():
            line[f"{name}_mean"] = round(statistics.mean(values), 4)
            if method != LEARNED and LEARNED in table:
                ahead = [float(other - value) for other, value in zip(table[LEARNED][name], values, strict=True)]
                line[f"{name}_p"] = sign_flip_p(ahead)
        lines.append(line)
    return lines


def _take_a_core(cores: Queue[int]) -> None:
    """Lets a process have one core of its own."""
    os.sched_setaffinity(0, {cores.get()})


def main() -> None:
    """Plays all seeds that are not there yet, and prints what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--by", choices=("classes", "photographs"), default="classes")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--space", default="demo.toml")
    parser.add_argument("--image-size", type=int, default=48)
    parser.add_argument("--per-class", type=int, default=80)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=1, help="seeds at once, each on a core of its own (Linux)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    context = get_context("spawn")
    cores = context.Queue()
    for core in sorted(os.sched_getaffinity(0))[: arguments.jobs]:
        cores.put(core)
    with ProcessPoolExecutor(arguments.jobs, context, initializer=_take_a_core, initargs=(cores,)) as pool:
        for found in pool.map(run_seed, repeat(arguments), range(arguments.seeds)):
            rows += found
            print("\n".join(map(json.dumps, found)), flush=True)
    lines = [*rows, *summary(rows), {"benchmark": "search_after_search", **environment()}]
    (arguments.out / "search_after_search.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print("\n".join(map(json.dumps, lines[len(rows) :])))


if __name__ == "__main__":
    main()
