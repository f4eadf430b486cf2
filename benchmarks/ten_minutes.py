"""How good a network does a user get in ten minutes on a CPU? Our search against Ultralytics, on held-back files.

    python benchmarks/ten_minutes.py --data DIR --out OUT --ultralytics-python VENV/bin/python [--minutes 10]
        [--splits 0 1 2] [--methods ours ultralytics-train ultralytics-tune]

The photographs are the first 50 of each class by name. Of these, every fifth is held back: split 0 holds back the
first, the sixth, ...; split 1 the second, and so on. Of the others, every tenth validates and the rest trains, the same
ones for every method, which trains as it likes on all cores and nothing beside it. Each tool then predicts the files
that were held back by its own prediction.

    ours              tune-cropshield search --data DIR --space SPACE --time-budget 10m --from-scratch (SPACE: below)
    ultralytics-train YOLO("yolo11n-cls.yaml").train(time=..., imgsz=64), from scratch
    ultralytics-tune  YOLO("yolo11n-cls.yaml").tune(epochs=10, imgsz=64), ended when the time is over; its best weights

Ultralytics wants an environment of its own: python -m venv VENV; VENV/bin/pip install ultralytics. It takes threads and
loader processes for all cores of the machine, also where `taskset` gives it two: here it sees those that it may use.

A JSON line per method and split, appended to OUT/ten_minutes.jsonl; what stands there is not run again. The last lines
compare `ours` with each other method on the photographs of all splits that both have judged (McNemar's exact test).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from environment import environment

from tune_cropshield.outcome.shares import OnSamePhotographs

PER_CLASS, HELD_EVERY, VALIDATED_EVERY, IMAGE_SIZE = 50, 5, 10, 64
SPACE = """
[trial]
model = "tiny_cnn"
image_size = 64
augment = "moderate"
schedule = "onecycle"
[space]
lr              = {log = [1e-4, 3e-2]}
max_norm        = {choice = ["none", 0.5, 1.0, 2.0, 5.0]}
weight_decay    = {log = [1e-5, 1e-1]}
effective_batch = {choice = [16, 32, 64]}
[search]
trials = 200
epochs = 12
grace_epochs = 2
"""
ULTRALYTICS = """
import json, sys
from ultralytics import YOLO
what, folder, data, seconds, held = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), json.loads(sys.argv[5])
common = dict(data=data, imgsz=64, device="cpu", plots=False, project=folder, exist_ok=True)
if what == "train":
    YOLO("yolo11n-cls.yaml").train(time=seconds / 3600, name="train", **common)
elif what == "tune":
    YOLO("yolo11n-cls.yaml").tune(epochs=10, iterations=1000, optimizer="AdamW", save=True, val=True, **common)
else:
    model, said = YOLO(what), {}
    for path in held:
        found = model.predict(path, imgsz=64, device="cpu", verbose=False)[0]
        said[path] = found.names[found.probs.top1]
    json.dump(said, open(folder + "/said.json", "w"))
"""

# Imported by every Python process that finds it, the ones that Ultralytics starts too.
CORES_IN_USE = "import os\nos.cpu_count = lambda: len(os.sched_getaffinity(0))\n"


def lay_out(source: Path, out: Path, split: int) -> tuple[Path, list[Path]]:
    """Copies the photographs of a split to out/data/train and out/data/val, and the rest to out/held.

    Returns the folder `data` and the files that were held back.
    """
    for folder in sorted(path for path in source.iterdir() if path.is_dir()):
        seen = 0
        for number, photograph in enumerate(sorted(folder.iterdir())[:PER_CLASS]):
            if number % HELD_EVERY == split:
                part = out / "held"
            else:
                part = out / "data" / ("val" if seen % VALIDATED_EVERY == 0 else "train")
                seen += 1
            (part / folder.name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(photograph, part / folder.name / photograph.name)
    return out / "data", sorted((out / "held").rglob("*.*"))


def ours(arguments: argparse.Namespace, folder: Path, data: Path, held: list[Path]) -> dict[str, str]:
    """Searches with a time budget and returns {file: class} of what best/ predicts."""
    (folder / "space.toml").write_text(SPACE)
    command = [sys.executable, "-m", "tune_cropshield"]
    flags = ["--space", folder / "space.toml", "--data", data, "--out", folder / "search", "--from-scratch"]
    _timed(folder, [*command, "search", *flags, "--time-budget", f"{60 * arguments.minutes:.0f}s"])
    said = subprocess.run(
        [*command, "predict", str(folder / "search" / "best"), *map(str, held), "--json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return {row["path"]: row["class"] for row in json.loads(said) if "class" in row}


def ultralytics_train(arguments: argparse.Namespace, folder: Path, data: Path, held: list[Path]) -> dict[str, str]:
    """Trains once for the time and returns {file: class} of what the best epoch predicts."""
    _ultralytics(arguments, folder, "train", data)
    return _ultralytics_says(arguments, folder, folder / "train" / "weights" / "best.pt", data, held)


def ultralytics_tune(arguments: argparse.Namespace, folder: Path, data: Path, held: list[Path]) -> dict[str, str]:
    """Tunes until the time is over and returns {file: class} of what its best weights predict."""
    _ultralytics(arguments, folder, "tune", data)
    weights = sorted(folder.rglob("tune*/weights/best.pt")) or sorted(folder.rglob("best.pt"))
    return _ultralytics_says(arguments, folder, weights[0], data, held)


def _ultralytics(arguments: argparse.Namespace, folder: Path, what: str, data: Path) -> None:
    seconds = 60 * arguments.minutes
    words = [arguments.ultralytics_python, "-c", ULTRALYTICS, what, str(folder), str(data), str(seconds), "[]"]
    (folder / "sitecustomize.py").write_text(CORES_IN_USE)
    found = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    _timed(folder, words, limit_s=seconds if what == "tune" else None, environ={**os.environ, "PYTHONPATH": found})


def _ultralytics_says(
    arguments: argparse.Namespace, folder: Path, weights: Path, data: Path, held: list[Path]
) -> dict[str, str]:
    files = json.dumps([str(path) for path in held])
    words = [arguments.ultralytics_python, "-c", ULTRALYTICS, str(weights), str(folder), str(data), "0", files]
    subprocess.run(words, cwd=folder, check=True, capture_output=True)
    said: dict[str, str] = json.loads((folder / "said.json").read_text())
    return said


def _timed(folder: Path, words: list[Any], limit_s: float | None = None, environ: dict[str, str] | None = None) -> None:
    """Runs a command in `folder`, its output in log.txt; with `limit_s`, it and its children end after so long."""
    with open(folder / "log.txt", "w") as log:
        process = subprocess.Popen(
            list(map(str, words)),
            cwd=folder,
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = 0
    if code:
        raise SystemExit(f"{words[0]} ended with {code}: {folder / 'log.txt'}")


METHODS: dict[str, Callable[[argparse.Namespace, Path, Path, list[Path]], dict[str, str]]] = {
    "ours": ours,
    "ultralytics-train": ultralytics_train,
    "ultralytics-tune": ultralytics_tune,
}


def compare(lines: list[dict[str, Any]], other: str) -> dict[str, Any] | None:
    """Returns how `ours` differs from another method on all photographs that both have judged; None where on none."""
    of = {(line["method"], line["split"]): set(line["right"]) for line in lines}
    held = {line["split"]: line["photographs"] for line in lines}
    both = [split for split in held if ("ours", split) in of and (other, split) in of]
    if not both:
        return None
    pairs = [(of["ours", split], of[other, split]) for split in both]
    only_ours, only_other = (sum(len(a - b) for a, b in pairs), sum(len(b - a) for a, b in pairs))
    count = sum(held[split] for split in both)
    return {
        "ours_against": other,
        "splits": both,
        "photographs": count,
        "gain_points": round(100 * (only_ours - only_other) / count, 2),
        "only_ours": only_ours,
        "only_other": only_other,
        "p_value": OnSamePhotographs(count, only_ours, only_other).p_value,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2], choices=range(HELD_EVERY))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--ultralytics-python", default="python3", help="of an environment that has ultralytics")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    table = out / "ten_minutes.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()] if table.exists() else []
    for split in arguments.splits:
        for method in arguments.methods:
            if any((line["method"], line["split"]) == (method, split) for line in lines):
                continue
            folder = out / f"{method}-{split}"
            shutil.rmtree(folder, ignore_errors=True)
            data, held = lay_out(arguments.data, folder, split)
            began = time.monotonic()
            said = METHODS[method](arguments, folder, data, held)
            right = [f"{path.parent.name}/{path.name}" for path in held if said.get(str(path)) == path.parent.name]
            lines.append(
                {
                    "method": method,
                    "split": split,
                    "minutes": arguments.minutes,
                    "photographs": len(held),
                    "accuracy": round(len(right) / len(held), 4),
                    "wall_s": round(time.monotonic() - began, 1),  # prediction included
                    **environment(),
                    "right": right,
                }
            )
            with open(table, "a") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(json.dumps({name: value for name, value in lines[-1].items() if name != "right"}), flush=True)
    for other in METHODS:
        if other != "ours" and (found := compare(lines, other)) is not None:
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
