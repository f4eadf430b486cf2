"""What starting costs: the README's first search, and a process that makes a network and its optimizer.

    python benchmarks/start_up.py                                   # this checkout
    python benchmarks/start_up.py --package . OTHER_DIR --repeats 3  # checkouts in turn, for comparison

One JSON line for each checkout: seconds of wall time, the median and all runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import environment

# Spelled so that older checkouts understand it too.
PROCESS = """
import importlib, torch
names = ("tune_cropshield.training.optimizers", "tune_cropshield.training.optim")
from tune_cropshield.training.models import build_model
for name in names:
    try:
        optimizers = importlib.import_module(name)
    except ModuleNotFoundError:
        continue
model = build_model("resnet18", 10)
optimizers.build_optimizer(model, "adamw", torch.tensor(0.1), 0.0).step()
"""


def seconds_of(command: list[str], package: Path, folder: str) -> float:
    """Returns the wall time of a command that imports `tune_cropshield` from `package`."""
    inherited = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(filter(None, [str(package.resolve()), inherited]))
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, nargs="+", default=[Path(__file__).parents[1]])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    searches: dict[Path, list[float]] = {package: [] for package in arguments.package}
    processes: dict[Path, list[float]] = {package: [] for package in arguments.package}
    for _ in range(arguments.repeats):
        for package in arguments.package:
            with tempfile.TemporaryDirectory() as folder:
                processes[package].append(seconds_of([sys.executable, "-c", PROCESS], package, folder))
                command = [sys.executable, "-m", "tune_cropshield", "search", "--out", "out"]
                searches[package].append(seconds_of(command, package, folder))
    for package in arguments.package:
        result = {
            "benchmark": "start_up",
            "package": package.resolve().name,
            "first_search_s": round(statistics.median(searches[package]), 1),
            "first_search_runs_s": [round(seconds, 1) for seconds in searches[package]],
            "process_s": round(statistics.median(processes[package]), 2),
            "process_runs_s": [round(seconds, 2) for seconds in processes[package]],
        }
        print(json.dumps(result | environment()))


if __name__ == "__main__":
    main()
