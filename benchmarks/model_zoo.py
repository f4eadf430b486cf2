"""Runs the commands for eight networks of timm and three of one's own: python benchmarks/model_zoo.py --data LEAVES

Each network is searched (2 trials of 2 epochs), its search continued with a third trial (--resume), its best network
evaluated, asked about a photograph and exported to ONNX. Prints a JSON line for each: the seconds and the exit code of
each command, the best accuracy, the test accuracy, the largest difference of a logit of the ONNX file, and for a
command that failed its last line.

LEAVES is a folder per class. A few classes of 30 photographs each are enough, and at 64 px a minute for each network.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from environment import environment

HERE = Path(__file__).parent
TIMMS = (
    "timm:resnet10t", "timm:convnext_atto", "timm:mobilenetv3_small_050", "timm:tf_efficientnet_lite0",
    "timm:regnetx_002", "timm:vit_tiny_patch16_224", "timm:resnetv2_50x1_bit", "timm:ghostnet_100",
)  # fmt: skip
OWN = {"PlainCNN": "", "TwoInputs": "head", "Standardised": ""}  # name in own_networks.py -> its head, if to be said
NETWORKS = {**dict.fromkeys(TIMMS, ""), **{f"{HERE / 'own_networks.py'}:{name}": head for name, head in OWN.items()}}
SPACE = """\
[trial]
model = {model}
image_size = {size}
effective_batch = 16
dropout = 0.1
{head}
[space]
lr = {{log = [1e-4, 3e-3]}}
[search]
trials = 2
epochs = 2
grace_epochs = 1
"""


def space_of(model: str, head: str, image_size: int) -> str:
    """Returns the search space for a network; head: its last layer, "" where that need not be said."""
    said = f"head = {json.dumps(head)}\n" if head else ""
    return SPACE.format(model=json.dumps(model), size=image_size, head=said)


def short(model: str) -> str:
    """Returns a network's name without the place that it comes from."""
    return model.rpartition(":")[2]


def run(folder: Path, *words: str) -> dict[str, Any]:
    """Returns how a command ended: its seconds, its exit code, its output."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tune_cropshield", *words], cwd=folder, capture_output=True, text=True, timeout=600
    )
    output = done.stdout + done.stderr
    return {"s": round(time.monotonic() - started, 1), "exit_code": done.returncode, "output": output}


def measured(model: str, head: str, data: Path, folder: Path, image_size: int) -> dict[str, Any]:
    """Returns a network's line."""
    folder.mkdir(parents=True)
    (folder / "space.toml").write_text(space_of(model, head, image_size), encoding="utf-8")
    search = ("search", "--data", str(data), "--space", "space.toml", "--out", "search", "--device", "cpu")
    photograph = next(path for path in sorted(data.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    commands = {
        "search": search,
        "resume": (*search, "--trials", "3", "--resume"),
        "evaluate": ("evaluate", "search/best", "--split", "test", "--json"),
        "predict": ("predict", "search/best", str(photograph)),
        "export": ("export", "search", "--format", "onnx"),
    }
    ended = {name: run(folder, *words) for name, words in commands.items()}
    table = folder / "search" / "trials.csv"
    rows = list(csv.DictReader(table.open(encoding="utf-8"))) if table.exists() else []
    difference = re.search(r"by at most ([\d.e+-]+);", ended["export"]["output"])
    return {
        "model": short(model),
        "seconds": {name: end["s"] for name, end in ended.items()},
        "failed": {
            name: end["output"].strip().splitlines()[-1:] for name, end in ended.items() if end["exit_code"] != 0
        },
        "states": [row["state"] for row in rows],
        "best_val_acc": max((float(row["best_val_acc"]) for row in rows if row["best_val_acc"]), default=None),
        "onnx_difference": float(difference.group(1)) if difference else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a folder that is not there yet")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--models", nargs="+", default=[short(model) for model in NETWORKS])
    arguments = parser.parse_args()
    for model, head in NETWORKS.items():
        if short(model) in arguments.models:
            folder = arguments.out.absolute() / short(model)
            line = measured(model, head, arguments.data.absolute(), folder, arguments.image_size)
            print(json.dumps(line | environment()), flush=True)


if __name__ == "__main__":
    main()
