"""What does a search hand back where one class has 78 times as many photographs as another?

    python benchmarks/imbalance.py --data leaves --out OUT [--seeds 3] [--trials 12] [--epochs 12]

DATA has a folder per class, like the leaves of PlantVillage. From it, in the order of names: the photographs of all
folders that end in "healthy" are one class, of which the first 468 are searched on; of the first four other folders the
first 6, 12, 24 and 48. So the largest class has 78 times as many as the smallest, and 84 % of all. Of each of the five
classes the next 50 photographs are held back.

For each seed the same space is searched for val_acc and for val_macro_f1: a small network from scratch, with class
weights and the balanced sampler among what is searched. No trial is stopped early, so that both train the same number
of epochs. The winner is judged on the photographs held back, 50 of each class. A JSON line per search, appended to
OUT/imbalance.jsonl, with what always answering the largest class would score there.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from environment import environment

import tune_cropshield as tc

LARGEST, RARE, HELD_BACK = 468, (6, 12, 24, 48), 50
SPACE: dict[str, Any] = {
    "data": {"val_share": 0.25},
    "trial": {"model": "tiny_cnn", "image_size": 64, "schedule": "onecycle"},
    "space": {
        "lr": {"log": [1e-4, 1e-2]},
        "class_weights": {"choice": ["none", "effective", "balanced"]},
        "sampling": {"choice": ["plain", "balanced"]},
    },
    "search": {"pruning": "none", "baseline": False},
}


def make_folders(data: Path, searched: Path, held_back: Path) -> None:
    """Writes the folder to search on and the one with what is held back, by the rule above."""
    folders = sorted(path for path in data.iterdir() if path.is_dir())
    healthy = [file for folder in folders if folder.name.endswith("healthy") for file in sorted(folder.iterdir())]
    others = [folder for folder in folders if not folder.name.endswith("healthy")][: len(RARE)]
    classes = {"healthy": (healthy, LARGEST)}
    classes |= {folder.name: (sorted(folder.iterdir()), count) for folder, count in zip(others, RARE, strict=True)}
    for name, (files, count) in classes.items():
        if len(files) < count + HELD_BACK:
            raise SystemExit(f"{data}: {name} has {len(files)} photographs, {count + HELD_BACK} are needed")
        for place, chosen in ((searched, files[:count]), (held_back, files[count : count + HELD_BACK])):
            (place / name).mkdir(parents=True)
            for file in chosen:
                shutil.copyfile(file, place / name / f"{file.parent.name}_{file.name}")


def judge(
    out: Path, searched: Path, held_back: Path, metric: str, seed: int, trials: int, epochs: int
) -> dict[str, Any]:
    """Searches once, and returns what the winner does on its validation photographs and on those held back."""
    folder = out / f"{metric}-{seed}"
    length = {"trials": trials, "epochs": epochs, "seed": seed, "device": "cpu"}
    found = tc.search(
        space=SPACE, data=searched, metric=metric, out=folder, from_scratch=True, resume=folder.exists(), **length
    )
    assert found.best is not None
    validated, others = tc.evaluate(folder / "best", split="val"), tc.evaluate(folder / "best", data=held_back)
    answers_K = others.evaluation.confusion_KK.sum(0)
    return {
        "metric": metric,
        "seed": seed,
        "epochs_trained": sum(row["epochs"] for row in found.trials),
        "winner": found.best.parameters,
        "val_acc": round(validated.accuracy, 4),
        "val_macro_f1": round(validated.macro_f1, 4),
        "accuracy": round(others.accuracy, 4),
        "macro_f1": round(others.macro_f1, 4),
        "balanced_acc": round(others.balanced_accuracy, 4),
        "answers_largest": round(int(answers_K[others.classes.index("healthy")]) / others.photographs, 4),
        "always_largest": {"accuracy": 0.2, "macro_f1": round((2 * 0.2 / 1.2) / 5, 4), "balanced_acc": 0.2},
        "always_largest_val_acc": round(
            sum(row.true_class == "healthy" for row in validated.judged) / len(validated.judged), 4
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    searched, held_back = arguments.out / "searched", arguments.out / "held_back"
    if not searched.exists():
        make_folders(arguments.data, searched, held_back)
    table = arguments.out / "imbalance.jsonl"
    done = (
        {(row["metric"], row["seed"]) for row in map(json.loads, table.read_text().splitlines())}
        if table.exists()
        else set()
    )
    for seed in range(arguments.seeds):
        for metric in ("val_acc", "val_macro_f1"):
            if (metric, seed) in done:
                continue
            row = judge(arguments.out, searched, held_back, metric, seed, arguments.trials, arguments.epochs)
            with open(table, "a") as file:
                file.write(json.dumps({**row, **environment()}) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
