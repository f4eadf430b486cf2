"""A search of real size, from the command to the report: where its time goes, and what start-up costs.

    python benchmarks/real_search.py --data LEAVES --out OUT                       # this checkout
    python benchmarks/real_search.py --data LEAVES --out OUT --package OTHER_DIR    # another checkout, for comparison

The photographs are made from those of --data by a rule: each is turned by 0, 360/N, 2 * 360/N, ... degrees about its
centre (--copies N), corners filled by the mirrored edge, and saved as JPEG of quality 95. EfficientNet-B0 from scratch,
at most --epochs epochs, halving by 3.

One JSON line: seconds in all; until the first trial's first update (`until_first_update_s`); after the last trial's
last epoch (`after_last_epoch_s`); start-up is both together, with its share; epochs trained; seconds of the parts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from environment import environment
from PIL import Image

PARTS = ("setup", "data_wait", "step", "evaluation", "checkpoint", "report")
SPACE = """
[trial]
model = "{model}"
image_size = {side}
augment = "moderate"
schedule = "onecycle"
[space]
lr = {{log = [1e-5, 3e-3]}}
max_norm = {{choice = ["none", 0.5, 1.0, 2.0]}}
effective_batch = {{choice = [32, 64, 128]}}
[search]
trials = {trials}
epochs = {epochs}
grace_epochs = 1
reduction_factor = 3
"""


def make_photographs(source: Path, target: Path, copies: int) -> int:
    """Writes the turned photographs and returns how many there are; those that are there already are kept."""
    originals = sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for folder in {path.parent.relative_to(source) for path in originals}:
        (target / folder).mkdir(parents=True, exist_ok=True)

    def turn(original: Path) -> None:
        relative = original.relative_to(source)
        with Image.open(original) as opened:
            photograph = opened.convert("RGB")
        width, height = photograph.size
        pad = int(0.5 * max(width, height))
        edges = ((pad, pad), (pad, pad), (0, 0))
        wide = Image.fromarray(np.pad(np.asarray(photograph), edges, mode="symmetric"))
        for number in range(copies):
            path = target / relative.with_name(f"{relative.stem}_{number}.jpg")
            if not path.exists():
                turned = wide.rotate(number * 360 / copies, Image.Resampling.BILINEAR)
                turned.crop((pad, pad, pad + width, pad + height)).save(path, quality=95)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None) as pool:
        list(pool.map(turn, originals))
    return copies * len(originals)


def lines_of(path: Path) -> list[dict[str, float]]:
    """Returns the objects of a .jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def main() -> None:
    """Makes the photographs, searches, and prints where the time went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--package", type=Path, default=Path(__file__).parents[1], help="checkout whose code searches")
    parser.add_argument("--copies", type=int, default=5)
    parser.add_argument("--model", default="efficientnet_b0")
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--vram", default="auto")
    arguments = parser.parse_args()
    photographs = arguments.out / "photographs"
    number = make_photographs(arguments.data, photographs, arguments.copies)
    name = f"search-{arguments.package.resolve().name}"
    space = arguments.out / f"{name}.toml"
    settings = {key: vars(arguments)[key] for key in ("model", "side", "trials", "epochs")}
    space.write_text(SPACE.format(**settings), encoding="utf-8")
    search = arguments.out / name / "search"  # alone there: a search learns from those beside it
    inherited = os.environ.get("PYTHONPATH", "")
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(arguments.package.resolve()), inherited])),
        "XDG_CACHE_HOME": str((arguments.out / f"cache-{name}").resolve()),  # nothing measured or decoded before
    }
    command = [sys.executable, "-m", "tune_cropshield", "search", "--data", str(photographs), "--space", str(space)]
    log = arguments.out / f"{name}.log"
    began = time.time()
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [*command, "--vram", arguments.vram, "--seed", "0", "--out", str(search)],
            env=environ,
            cwd=arguments.out,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    ended = time.time()
    if done.returncode:
        sys.exit(f"the search ended with exit code {done.returncode}; {log} says:\n{log.read_text(encoding='utf-8')}")
    trials = [lines_of(folder / "times.jsonl") for folder in sorted(search.glob("t[0-9]*"))]
    lines = [line for trial in trials for line in trial]
    first = min(line["ended"] for line in lines if line["what"] == "setup")
    last = max(line["ended"] for line in lines if line["what"] == "epoch")
    start_up = (first - began) + (ended - last)
    result = {
        "benchmark": "real_search",
        **settings,
        "photographs": number,
        "vram": arguments.vram,
        "seconds": round(ended - began, 1),
        "until_first_update_s": round(first - began, 1),
        "after_last_epoch_s": round(ended - last, 1),
        "start_up_share": round(start_up / (ended - began), 4),
        "epochs_trained": sum(line["what"] == "epoch" for line in lines),
        "parts_s": {part: round(sum(line[part] for line in lines), 1) for part in PARTS},
        "images_per_s": round(_median_speed(search)),
    }
    print(json.dumps(result | environment()))


def _median_speed(search: Path) -> float:
    speeds = [line["images_per_s"] for path in search.glob("t[0-9]*/metrics.jsonl") for line in lines_of(path)[1:]]
    return float(np.median(speeds)) if speeds else float("nan")


if __name__ == "__main__":
    main()
