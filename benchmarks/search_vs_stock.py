"""Wall time of a whole search, ours against the stock recipe (`stock_recipe.py`).

Both search the same photographs with the same model, image size, trials, epochs and halving.

    python benchmarks/search_vs_stock.py --preset cpu                   # 2 cores, synthetic leaves of 64 px,
                                                                        # tiny_cnn, 16 trials
    python benchmarks/search_vs_stock.py --preset h200 --data leaves/   # 1,800 of the photographs at 160 px,
                                                                        # EfficientNet-B0, 12 trials

Each run is the whole command as a user types it, interpreter and imports included. Ours is timed twice a round: "first"
with an empty cache (it decodes, and on a GPU measures what fits), "again" with what that left behind; the stock recipe
keeps nothing between runs. The sides take turns. One JSON line per run, then one with the medians and the ratios.
`--stock-repeats 1` where time is short: the line says how many there were.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from environment import environment

from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.outcome.ledger import read_ledger
from tune_cropshield.training.run_folder import read_metrics

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Preset:
    """A search that both sides make. images: how many photographs of --data, evenly over the classes."""

    model: str
    image_size: int
    trials: int
    epochs: int
    grace: int
    reduction: int
    lr: tuple[float, float]
    batches: tuple[int, ...]
    images: int
    workers: int  # DataLoader processes of a stock trial
    drawn_size: int | None  # px of the leaves to draw where no --data is given


PRESETS = {
    "cpu": Preset("tiny_cnn", 64, 16, 20, 2, 3, (1e-4, 3e-2), (16, 32, 64), 480, 2, 160),
    "h200": Preset("efficientnet_b0", 160, 12, 9, 1, 3, (1e-5, 3e-3), (32, 64, 128), 1800, 8, None),
}

SPACE = """
[trial]
model = "{model}"
pretrained = false
image_size = {image_size}
augment = "moderate"
schedule = "plateau"
[space]
lr = {{log = [{lr[0]!r}, {lr[1]!r}]}}
max_norm = {{choice = ["none", 0.5, 1.0, 2.0, 5.0]}}
effective_batch = {{choice = {batches}}}
[search]
trials = {trials}
epochs = {epochs}
grace_epochs = {grace}
reduction_factor = {reduction}
"""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="cpu")
    parser.add_argument("--data", type=Path, help="photographs, one folder per class")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stock-repeats", type=int, help="as --repeats")
    parser.add_argument("--trials-per-gpu", default="auto")
    parser.add_argument("--workers", type=int, help="DataLoader processes of a stock trial, instead of the preset's")
    parser.add_argument("--trials", type=int, help="instead of the preset's")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    arguments = parser.parse_args()
    wishes = {name: vars(arguments)[name] for name in ("trials", "epochs") if vars(arguments)[name] is not None}
    preset = replace(PRESETS[arguments.preset], **wishes)
    if arguments.data is None and preset.drawn_size is None:
        parser.error(f"--preset {arguments.preset} needs --data DIR")
    stock_repeats = arguments.repeats if arguments.stock_repeats is None else arguments.stock_repeats
    seconds: dict[str, list[float]] = {"stock": [], "first": [], "again": []}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        data = photographs(arguments.data, preset, work / "photographs")
        space = work / "space.toml"
        space.write_text(SPACE.format(**{**vars(preset), "batches": list(preset.batches)}), encoding="utf-8")
        for turn in range(max(arguments.repeats, stock_repeats)):
            if turn < stock_repeats:
                command = stock_command(preset, data, work / f"stock{turn}", arguments.workers or preset.workers)
                taken, output = timed(command, work / "no-cache")
                seconds["stock"].append(taken)
                show("stock", turn, taken, json.loads(output.splitlines()[-1]))
            if turn < arguments.repeats:
                for side in ("first", "again"):
                    out = work / f"{side}{turn}"
                    taken, _ = timed(our_command(space, data, out, arguments.trials_per_gpu), work / f"cache{turn}")
                    seconds[side].append(taken)
                    show(side, turn, taken, what_came_of(out))
    medians = {side: statistics.median(values) if values else None for side, values in seconds.items()}
    stock = medians["stock"]
    result = {
        "benchmark": "search_vs_stock",
        "preset": arguments.preset,
        **vars(preset),
        "repeats": {side: len(values) for side, values in seconds.items()},
        **{f"{side}_s": round(median, 1) if median is not None else None for side, median in medians.items()},
        **{
            f"ratio_{side}": round(stock / median, 2)
            for side in ("first", "again")
            if stock is not None and (median := medians[side]) is not None
        },
    }
    versions = {name: version(name) for name in ("torchvision", "ray", "optuna")}
    print(json.dumps(result | versions | environment()), flush=True)


def photographs(source: Path | None, preset: Preset, target: Path) -> Path:
    """Returns a folder with the preset's number of photographs: synthetic, or the first of each class of `source`."""
    if source is None:
        assert preset.drawn_size is not None
        return draw_leaves(target, classes=6, per_class=preset.images // 6, image_size=preset.drawn_size)
    classes = sorted(path for path in source.iterdir() if path.is_dir())
    for of_class in classes:
        (target / of_class.name).mkdir(parents=True)
        for path in sorted(of_class.iterdir())[: preset.images // len(classes)]:
            shutil.copy(path, target / of_class.name)
    return target


def stock_command(preset: Preset, data: Path, out: Path, workers: int) -> list[str]:
    """Returns the stock recipe's command line."""
    settings = {
        "data": data,
        "model": preset.model,
        "image-size": preset.image_size,
        "trials": preset.trials,
        "epochs": preset.epochs,
        "grace": preset.grace,
        "reduction": preset.reduction,
        "workers": workers,
        "out": out,
    }
    given = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    several = ["--lr", *map(str, preset.lr), "--batches", *map(str, preset.batches)]
    return [sys.executable, str(ROOT / "benchmarks" / "stock_recipe.py"), *given, *several]


def our_command(space: Path, data: Path, out: Path, trials_per_gpu: str) -> list[str]:
    """Returns our command line."""
    given = ["--space", str(space), "--data", str(data), "--out", str(out), "--trials-per-gpu", trials_per_gpu]
    return [sys.executable, "-m", "tune_cropshield", "search", "--from-scratch", *given]


def timed(command: list[str], cache: Path) -> tuple[float, str]:
    """Returns the seconds that `command` takes, our cache lying in `cache`, and what it printed. Ends this program when
    it fails.
    """
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = time.perf_counter()
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths, "XDG_CACHE_HOME": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
    return seconds, done.stdout


def what_came_of(out: Path) -> dict[str, object]:
    """Returns the number of trials and epochs, the best accuracy and where the time went."""
    lines = [line for folder in sorted(out.glob("t[0-9]*")) for line in read_metrics(folder)]
    trials = len({*out.glob("t[0-9]*")})
    return {
        "trials": trials,
        "epochs": len(lines),
        "best_val_acc": round(max(line["val_acc"] for line in lines), 4),
        "median_images_per_s": round(statistics.median(line["images_per_s"] for line in lines)),
        "ledger": read_ledger(out),
    }


def show(side: str, turn: int, seconds: float, more: dict[str, object]) -> None:
    """Prints one run."""
    print(json.dumps({"side": side, "repeat": turn, "seconds": round(seconds, 1), **more}), flush=True)


if __name__ == "__main__":
    main()
