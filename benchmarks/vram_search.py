"""Do the pairs that are planned fit, and are they the fastest? Searches on a GPU held to a laptop's memory.

    python benchmarks/vram_search.py PART... --out DIR [--data DIR] [--budget 8GB 4GB] [--model NAME...]
        [--trials 20] [--seconds 540]

Parts:

  predict     estimate, probe, and what a real trial of each effective batch then reserves
  search      `tune_cropshield search` over all pairs under each budget: trials that ran out of memory and retries with
              smaller micro-batches (both must be 0)
  optimistic  the same from Python, over pairs that fit 1.5 times the budget and not the budget: retries must save every
              trial, effective batches unchanged
  speed       EfficientNet-B0 under the first budget: the guide's 16 x 2 in the guide's way (each kernel launched by
              itself) and as trials here run it (CUDA graphs), the best pair at its effective batch, the best pair of
              all

`search` and `optimistic` run beside a ballast process that holds all of the card but the budget. Every result is a JSON
line in DIR/PART.jsonl and on standard output; DIR/PART.csv holds the same as a table. A part stops starting new work
after --seconds.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from vram_harness import (
    CLASSES,
    Results,
    device,
    fresh,
    in_another_process,
    leaves,
    now,
    own_cache,
    probed_plan,
    small_card,
)

from tune_cropshield.config.settings import RunConfig, TrialConfig, load_config
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.data.windows import WindowSettings, training_windows
from tune_cropshield.device import find_card
from tune_cropshield.memory.choose.budget import Budget, resolve_budget
from tune_cropshield.memory.choose.for_gpu import estimate_for
from tune_cropshield.memory.choose.pairs import Pair, Plan
from tune_cropshield.memory.choose.plans import plan_from_estimate
from tune_cropshield.memory.guard import cap_allocator
from tune_cropshield.search.folder import make_folder, trial_folder
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.precision import DTYPES
from tune_cropshield.training.run_folder import read_events, read_metrics

EFFECTIVE_BATCHES = (16, 32, 64, 128, 256)
SEARCHED_BATCHES = (16, 32, 64, 96, 128, 192)
OPTIMISM = 1.5
GUIDES_PAIR = Pair(16, 2)
WARM_UP_WINDOWS, TURNS, WINDOWS_A_TURN = 20, 3, 80  # 240 windows are timed of each pair, warm-up outside the clock
PICTURES = 64  # of random pixels


def predict(results: Results, arguments: argparse.Namespace) -> None:
    """Compares estimate and probe with what real trials reserve, one process per model."""
    for model in arguments.model:
        if results.seconds() > arguments.seconds:
            results.add(model=model, left_out="no time")
            continue
        started = time.perf_counter()
        plan = probed_plan(arguments, model, arguments.budget[0], EFFECTIVE_BATCHES)
        results.add(
            model=model,
            probe_s=round(time.perf_counter() - started, 1),
            context_mib=plan.context_mib,
            share_mib=plan.share_mib,
        )
        pairs = sorted(
            {pair for made in plan.pairs.values() for pair in made[:1]} | {GUIDES_PAIR},
            key=lambda pair: (pair.micro_batch, pair.accumulation),
        )
        for pair, reserved_mib, images_per_s in in_another_process(
            train_pairs, arguments, model, pairs, plan.share_mib
        ):
            figures = plan.figures[pair]
            results.add(
                model=model,
                pair=str(pair),
                estimated_reserved_mib=figures.predicted_reserved_mib,
                probed_reserved_mib=figures.measured_reserved_mib,
                trial_reserved_mib=reserved_mib,
                estimate_error=error(figures.predicted_reserved_mib, reserved_mib),
                probe_error=error(figures.measured_reserved_mib, reserved_mib),
                probed_images_per_s=figures.images_per_s,
                trial_images_per_s=round(images_per_s),
            )


def error(predicted: float | None, actual: float) -> float | None:
    """Returns by what share `predicted` is too high."""
    return None if predicted is None or not actual else round(predicted / actual - 1, 4)


def train_pairs(
    arguments: argparse.Namespace, model: str, pairs: list[Pair], share_mib: float | None
) -> list[tuple[Pair, float, float]]:
    """Trains two epochs of each pair as a search's worker would; returns (pair, most MiB reserved, images/s of the
    second epoch).
    """
    from tune_cropshield.training.loop import run_trial

    data = DeviceData(leaves(arguments), device())
    seen = []
    for pair in pairs:
        trial = searched_trial(model, arguments, pair)
        folder = arguments.out / "predict" / model / str(pair)
        run_trial(RunConfig(trial=trial), data, folder, report=lambda report: None, memory_mib=share_mib)
        lines = read_metrics(folder)
        seen.append((pair, max(line["peak_vram_mib"] for line in lines), lines[-1]["images_per_s"]))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return seen


def searched_trial(
    model: str, arguments: argparse.Namespace, pair: Pair, epochs: int = 2, cuda_graphs: bool = True
) -> TrialConfig:
    return TrialConfig(
        model=model,
        image_size=arguments.image_size,
        effective_batch=pair.effective_batch,
        micro_batch=pair.micro_batch,
        epochs=epochs,
        max_norm=1.0,
        cuda_graphs=cuda_graphs,
    )


def search(results: Results, arguments: argparse.Namespace) -> None:
    """Runs the command as a user would, in a card of each budget's size."""
    for budget in arguments.budget:
        for model in arguments.model:
            if results.seconds() > arguments.seconds:
                results.add(model=model, budget=budget, left_out="no time")
                continue
            out = fresh(arguments.out / f"search-{model}-{budget}")
            space = write_space(out.parent / f"{out.name}.toml", model, arguments)
            command = [
                sys.executable,
                "-m",
                "tune_cropshield",
                "search",
                "--from-scratch",
                "--space",
                str(space),
                "--data",
                str(arguments.data),
                "--out",
                str(out),
            ]
            started = time.perf_counter()
            with small_card(budget) as card:
                log = out.parent / f"{out.name}.log"
                with open(log, "w", encoding="utf-8") as file:
                    code = subprocess.run(
                        [*command, "--vram", budget],
                        env=own_cache(arguments, budget),
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    ).returncode
            add_search(
                results,
                arguments,
                model,
                budget,
                out,
                time.perf_counter() - started,
                exit_code=code,
                free_mib=card.get("free_mib"),
            )


def optimistic(results: Results, arguments: argparse.Namespace) -> None:
    """Searches with pairs planned for 1.5 times the memory that trials then get: the share stays the budget's own."""
    for budget in arguments.budget:
        for model in arguments.model:
            if results.seconds() > arguments.seconds:
                results.add(model=model, budget=budget, left_out="no time")
                continue
            out = fresh(arguments.out / f"optimistic-{model}-{budget}")
            started = time.perf_counter()
            with small_card(budget) as card:
                planned = in_another_process(search_optimistically, arguments, model, budget, out)
            add_search(
                results,
                arguments,
                model,
                budget,
                out,
                time.perf_counter() - started,
                planned=" ".join(planned),
                free_mib=card.get("free_mib"),
            )


def search_optimistically(arguments: argparse.Namespace, model: str, budget_text: str, out: Path) -> list[str]:
    """Returns the pairs that were searched."""
    from rich.console import Console

    from tune_cropshield.config.space_file import load_space
    from tune_cropshield.search.context import begin_search
    from tune_cropshield.search.prepare import Prepared
    from tune_cropshield.search.resources import divide
    from tune_cropshield.search.run import run_search
    from tune_cropshield.search.views.choose import view_for

    budget = resolve_budget(budget_text, find_card())
    estimate = estimate_for(TrialConfig(model=model, image_size=arguments.image_size, precision="fp16"), CLASSES)
    too_much = Budget(budget.total_mib * OPTIMISM, budget.context_mib).share_mib()
    largest, fits = estimate.largest_micro_batch(too_much, 1), estimate.largest_micro_batch(budget.share_mib(), 1)
    batches = sorted({round((fits + (largest - fits) * share) / 8) * 8 for share in (0.25, 0.5, 0.75, 1.0)})
    plan: Plan = plan_from_estimate(estimate, batches, too_much, budget.context_mib)
    plan = dataclasses.replace(plan, share_mib=budget.share_mib())
    make_folder(out)
    plan = dataclasses.replace(plan, pairs={batch: (Pair(batch, 1),) for batch in batches if batch <= largest})
    space = load_space(write_space(out.parent / f"{out.name}.toml", model, arguments, tuple(plan.pairs)))
    resources = divide(device().type, 1, arguments.trials)
    found = Prepared(space, leaves(arguments), plan, resources, find_card(), out)
    view = view_for(Console(file=sys.stderr))
    run_search(begin_search(found, out, view, resume=False, command=["vram_search"]))
    return [str(pair) for batch in plan.effective_batches for pair in plan.pairs[batch]]


def add_search(
    results: Results, arguments: argparse.Namespace, model: str, budget: str, out: Path, seconds: float, **more: Any
) -> None:
    """Adds what became of a search: how its trials ended, how often memory ran out, whether every update had its
    effective batch.
    """
    with open(out / "trials.csv", encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    folders = [trial_folder(out, int(trial["trial"])) for trial in trials]
    events = [read_events(folder) for folder in folders]
    images = len(leaves(arguments).split.train)
    results.add(
        model=model,
        budget=budget,
        trials=len(trials),
        outcomes=json.dumps(
            {
                name: sum(trial["outcome"] == name for trial in trials)
                for name in sorted({trial["outcome"] for trial in trials})
            }
        ),
        out_of_memory=sum("memory" in trial["reason"].lower() for trial in trials),
        memory_retries=sum(step["event"] == "out of memory" for steps in events for step in steps),
        trials_with_retries=sum(any(step["event"] == "out of memory" for step in steps) for steps in events),
        effective_batches_kept=all(updates_are_right(folder, images) for folder in folders),
        pairs=" ".join(sorted({trial.get("pair", "") for trial in trials})),
        most_reserved_mib=max(
            (line["peak_vram_mib"] for folder in folders for line in read_metrics(folder)), default=None
        ),
        seconds=round(seconds),
        **more,
    )


def updates_are_right(folder: Path, images: int) -> bool:
    """Tells whether the first epoch made as many updates (skipped ones included) as the effective batch makes of its
    photographs.
    """
    lines = read_metrics(folder)
    if not lines:
        return False
    return bool(
        lines[0]["updates"] + lines[0]["skipped_steps"]
        == math.ceil(images / load_config(folder / "config.toml").trial.effective_batch)
    )


def speed(results: Results, arguments: argparse.Namespace) -> None:
    """Times the guide's pair, the best one at its effective batch, and the best of all, in one process, turn by turn
    under the cap.
    """
    model, budget = "efficientnet_b0", arguments.budget[0]
    plan = probed_plan(arguments, model, budget, EFFECTIVE_BATCHES)
    fastest = max(
        (pairs[0] for pairs in plan.pairs.values() if pairs), key=lambda pair: plan.figures[pair].images_per_s or 0.0
    )
    pairs = {
        "guide": GUIDES_PAIR,
        "guide_with_graphs": GUIDES_PAIR,
        "best_at_32": plan.best(32),
        "best_of_all": fastest,
    }
    cap_allocator(plan.share_mib, device())
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in pairs}
    for _ in range(TURNS):
        for name, pair in pairs.items():
            turns[name].append(timed_turn(model, arguments, pair, cuda_graphs=name != "guide"))
    guide = statistics.median(speed for speed, _ in turns["guide"])
    for name, pair in pairs.items():
        speeds = [speed for speed, _ in turns[name]]
        results.add(
            model=model,
            budget=budget,
            what=name,
            pair=str(pair),
            windows=TURNS * WINDOWS_A_TURN,
            images_per_s=round(statistics.median(speeds)),
            lowest=round(min(speeds)),
            highest=round(max(speeds)),
            ratio_to_guide=round(statistics.median(speeds) / guide, 2),
            most_reserved_mib=max(reserved for _, reserved in turns[name]),
            share_mib=plan.share_mib,
        )


def timed_turn(model: str, arguments: argparse.Namespace, pair: Pair, cuda_graphs: bool) -> tuple[float, float]:
    """Returns images/s, and the most MiB reserved, of random pictures through augmentation and the trial's own step,
    warmed up.
    """
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    side, size = Preparation(arguments.image_size).store_side, arguments.image_size
    feed = ImageFeed(
        torch.randint(256, (PICTURES, side, side, 3), dtype=torch.uint8), device(), resident=device().type == "cuda"
    )
    indices = torch.arange((WARM_UP_WINDOWS + WINDOWS_A_TURN) * pair.effective_batch) % PICTURES
    labels_N = torch.randint(CLASSES, (PICTURES,)).to(device())
    trial = searched_trial(model, arguments, pair, epochs=1, cuda_graphs=cuda_graphs)
    step = build_trainer(trial, CLASSES, labels_N.cpu()[indices], device()).step
    step.model.train()
    settings = WindowSettings(pair.effective_batch, pair.micro_batch, trial.augment, None, 0, DTYPES[step.precision])
    windows = training_windows(feed, labels_N, indices, settings, 0, size)
    for _ in range(WARM_UP_WINDOWS):
        step.train_window(next(windows))
    started = now()
    for window in windows:
        step.remember()
        step.train_window(window)
    seconds = now() - started
    return (
        WINDOWS_A_TURN * pair.effective_batch / seconds,
        torch.cuda.max_memory_reserved() / 2**20 if torch.cuda.is_available() else 0.0,
    )


def write_space(
    path: Path, model: str, arguments: argparse.Namespace, batches: tuple[int, ...] = SEARCHED_BATCHES
) -> Path:
    """Writes the search space of the benchmark: every pair, short trials."""
    path.write_text(
        f"""[data]
dir = {json.dumps(str(arguments.data.absolute()))}
[trial]
model = "{model}"
image_size = {arguments.image_size}
pretrained = false
schedule = "onecycle"
[space]
lr = {{log = [1e-4, 3e-3]}}
effective_batch = {{choice = {list(batches)}}}
[search]
trials = {arguments.trials}
epochs = {arguments.epochs}
grace_epochs = 1
pairs = "all"
sampler = "random"
""",
        encoding="utf-8",
    )
    return path


PARTS = {"predict": predict, "search": search, "optimistic": optimistic, "speed": speed}


def main() -> None:
    """Runs the parts asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("shared/data/leaves"))
    parser.add_argument("--budget", nargs="+", default=["8GB", "4GB"])
    parser.add_argument("--model", nargs="+", default=["cropshield_cnn", "efficientnet_b0"])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=540.0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    for part in arguments.parts:
        results = Results(arguments.out, part, started)
        try:
            PARTS[part](results, arguments)
        finally:
            results.write_table()


if __name__ == "__main__":
    main()
