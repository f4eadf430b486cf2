"""What the parts of vram_search.py share: results, plans, small cards, processes."""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from environment import environment

from tune_cropshield.config.settings import DataConfig, TrialConfig
from tune_cropshield.config.units import parse_budget
from tune_cropshield.data.dataset import LeafData, open_data
from tune_cropshield.device import find_card
from tune_cropshield.memory.choose.budget import resolve_budget
from tune_cropshield.memory.choose.for_gpu import estimate_for, plan_for_gpu
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.memory.choose.plans import plan_from_estimate

CLASSES = 22


class Results:
    """Writes each result as a JSON line, and all of them as a table at the end."""

    def __init__(self, out: Path, part: str, started: float) -> None:
        self.out, self.part, self.rows = out, part, list[dict[str, Any]]()
        out.mkdir(parents=True, exist_ok=True)
        (out / f"{part}.jsonl").unlink(missing_ok=True)
        self.started = started

    def add(self, **row: Any) -> None:
        line = json.dumps({"part": self.part, **row, **environment()})
        print(line, flush=True)
        with open(self.out / f"{self.part}.jsonl", "a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.rows.append(row)

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def write_table(self) -> None:
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        with open(self.out / f"{self.part}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)


def now() -> float:
    """Waits for the device and returns the time."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def probed_plan(arguments: argparse.Namespace, model: str, budget: str, effective_batches: tuple[int, ...]) -> Plan:
    """Returns the measured plan; without a GPU (to try the benchmark out) the estimated one."""
    trial = TrialConfig(
        model=model,
        image_size=arguments.image_size,
        precision="fp16" if torch.cuda.is_available() else "fp32",
        max_norm=1.0,
    )
    card = find_card()
    resolved = resolve_budget(budget, card)
    if card is None:
        return plan_from_estimate(
            estimate_for(trial, CLASSES), effective_batches, resolved.share_mib(), resolved.context_mib
        )
    return plan_for_gpu(trial, CLASSES, effective_batches, resolved, card, arguments.out / "cache")


def leaves(arguments: argparse.Namespace) -> LeafData:
    return open_data(DataConfig(dir=str(arguments.data.absolute())), {arguments.image_size}, arguments.out / "cache")


def fresh(folder: Path) -> Path:
    """Returns `folder`, which must not exist yet."""
    if folder.exists():
        raise SystemExit(f"{folder} exists: give a fresh --out")
    return folder


def own_cache(arguments: argparse.Namespace, budget: str) -> dict[str, str]:
    """Returns an environment in which nothing measured on another size of card is known."""
    return {**os.environ, "XDG_CACHE_HOME": str((arguments.out / f"cache-{budget}").absolute())}


@contextmanager
def small_card(budget: str) -> Iterator[dict[str, float]]:
    """Inside, all of the GPU but `budget` is held by another process; yields what is held and free in MiB, nothing
    without a GPU.
    """
    amount = parse_budget(budget)
    assert amount is not None
    if not torch.cuda.is_available():
        yield {}
        return
    script = Path(__file__).with_name("vram_ballast.py")
    ballast = subprocess.Popen(
        [sys.executable, str(script), str(amount.ours_mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert ballast.stdin is not None and ballast.stdout is not None
    try:
        yield json.loads(ballast.stdout.readline())
    finally:
        ballast.stdin.close()
        ballast.wait()


def in_another_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what `function` returns in a process of its own, whose GPU context ends with it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()
