"""Our depthwise kernels against cuDNN's in a trial's own step: the seconds to the first step of each micro-batch, and images/s from then on.

    python benchmarks/depthwise.py --model efficientnet_b0 --image-size 160 --micro-batches 32 128 --repeats 3

Needs a GPU. Each measurement is a process of its own, in which everything is loaded and a step of another network has run before, so that the first
micro-batch's seconds are those of its kernels. The sides take turns. One JSON line with the medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time

import torch
from environment import environment

from tune_cropshield.config import TrialConfig
from tune_cropshield.memory.measured_step import measure
from tune_cropshield.training import build

SIDES = ("ours", "cudnn")
CLASSES = 15


def measured(side: str, model: str, image_size: int, micro_batches: list[int]) -> dict[int, tuple[float, float]]:
    """Returns {micro-batch: (seconds of its first two windows, images/s)}; runs in a process of its own."""
    if side == "cudnn":
        build.use_own_kernels = lambda network, kernels: None
    device = torch.device("cuda", 0)
    trial = TrialConfig(model=model, image_size=image_size, augment="moderate", max_norm=1.0, epochs=1)
    measure(trial.model_copy(update={"model": "resnet18"}), CLASSES, 16, device, 0.0, warm_up=1, timed=1)
    found = {}
    for micro_batch in micro_batches:
        started = time.perf_counter()
        measure(trial, CLASSES, micro_batch, device, 0.0, warm_up=1, timed=1)
        first_s = time.perf_counter() - started
        point = measure(trial, CLASSES, micro_batch, device, 0.0)
        assert point.images_per_s is not None, point.reason
        found[micro_batch] = (first_s, point.images_per_s)
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_b0")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--micro-batches", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    turns: dict[str, list[dict[int, tuple[float, float]]]] = {side: [] for side in SIDES}
    for _ in range(arguments.repeats):
        for side in SIDES:
            with multiprocessing.get_context("spawn").Pool(1) as process:
                turns[side].append(process.apply(measured, (side, arguments.model, arguments.image_size, arguments.micro_batches)))
    result = {
        side: {
            micro_batch: {
                "first_s": round(statistics.median(turn[micro_batch][0] for turn in turns[side]), 2),
                "images_per_s": round(statistics.median(turn[micro_batch][1] for turn in turns[side])),
            }
            for micro_batch in arguments.micro_batches
        }
        for side in SIDES
    }
    print(json.dumps({"benchmark": "depthwise", **vars(arguments), **result, **environment()}))


if __name__ == "__main__":
    main()
