"""Does validation say what a network is worth on new plants, where each plant was photographed several times?

    python benchmarks/group_split.py --out OUT [--plants 20] [--views 4] [--seeds 5]

For each seed, synthetic leaves of six classes are made (as by `sample-data --views`), and other leaves as new plants.
`train` runs twice: with photographs of one plant kept together (the default), and with `group = "none"`. The accuracy
on its validation photographs is compared with that on the new plants (`evaluate --data`). A JSON line per training,
appended to OUT/group_split.jsonl; the last two lines hold the means.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from environment import environment

import tune_cropshield as tc
from tune_cropshield.data.generated import draw_leaves

CLASSES, NEW_PLANTS, IMAGE_SIZE = 6, 100, 64
CONFIG = """
[data]
dir = "{data}"
group = "{group}"
val_share = 0.2
[trial]
model = "tiny_cnn"
image_size = 64
epochs = {epochs}
lr = 3e-3
schedule = "onecycle"
weight_decay = 0.01
effective_batch = 32
seed = {seed}
"""


def compare(out: Path, plants: int, views: int, epochs: int, seed: int, group: str) -> dict[str, Any]:
    """Trains once, and returns the accuracy on validation photographs and on new plants."""
    known, new = out / f"known-{seed}", out / f"new-{seed}"
    if not known.exists():
        draw_leaves(known, CLASSES, plants * views, IMAGE_SIZE, seed=2 * seed, views=views)
        draw_leaves(new, CLASSES, NEW_PLANTS, IMAGE_SIZE, seed=2 * seed + 1)
    folder = out / f"{group}-{seed}"
    config = folder.with_suffix(".toml")
    config.write_text(CONFIG.format(data=known.absolute(), group=group, epochs=epochs, seed=seed))
    tc.train(config, out=folder, device="cpu")
    validated, others = tc.evaluate(folder, split="val"), tc.evaluate(folder, data=new)
    return {
        "group": group,
        "seed": seed,
        "plants": plants,
        "views": views,
        "epochs": epochs,
        "val_acc": round(validated.accuracy, 4),
        "new_plants_acc": round(others.accuracy, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plants", type=int, default=20)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows = []
    with open(arguments.out / "group_split.jsonl", "a") as table:
        for seed in range(arguments.seeds):
            for group in ("found", "none"):
                row = compare(arguments.out, arguments.plants, arguments.views, arguments.epochs, seed, group)
                rows.append(row)
                table.write(json.dumps({**row, **environment()}) + "\n")
                print(json.dumps(row), flush=True)
    for group in ("found", "none"):
        own = [row for row in rows if row["group"] == group]
        means = {name: round(statistics.mean(row[name] for row in own), 4) for name in ("val_acc", "new_plants_acc")}
        print(json.dumps({"group": group, "seeds": len(own), **means}))


if __name__ == "__main__":
    main()
