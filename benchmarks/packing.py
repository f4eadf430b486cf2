"""Images per second of one, two, ... trials at once on one device, each in its own process running the trial's own loop.

    python benchmarks/packing.py --model tiny_cnn --image-size 64 --effective-batch 32          # a CPU: N processes of one thread against one of N
    python benchmarks/packing.py --model efficientnet_b0 --image-size 160 --effective-batch 64  # a GPU: what --trials-per-gpu auto measures

One JSON line with the median over `--repeats` of each arrangement.
"""

from __future__ import annotations

import argparse
import json
import statistics

import torch
from environment import environment

from tune_cropshield.config import TrialConfig
from tune_cropshield.memory.packed_step import Share
from tune_cropshield.memory.packing import best_number, measure_packing
from tune_cropshield.search.resources import num_cores


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny_cnn")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--effective-batch", type=int, default=32)
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--most", type=int, default=4, help="processes at once, at most; on a CPU no more than cores")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cuda, cores = torch.cuda.is_available(), num_cores()
    trial = TrialConfig(
        model=arguments.model,
        image_size=arguments.image_size,
        effective_batch=arguments.effective_batch,
        micro_batch=arguments.micro_batch,
        max_norm=1.0,
        epochs=1,
    )

    def share_of(number: int) -> Share:
        return Share(trial.model_copy(update={"threads": max(cores // number, 1)}), 15, None, "cuda:0" if cuda else "cpu")

    most = arguments.most if cuda else min(arguments.most, cores)
    measured = [measure_packing(share_of, most, arguments.seconds) for _ in range(arguments.repeats)]
    speeds = {number: round(statistics.median(run[number] for run in measured)) for number in measured[0] if all(number in run for run in measured)}
    settings = {name: vars(arguments)[name] for name in ("model", "image_size", "effective_batch", "micro_batch", "repeats", "seconds")}
    result = {"benchmark": "packing", **settings, "images_per_s": speeds, "best": best_number(speeds)}
    print(json.dumps(result | environment()))


if __name__ == "__main__":
    main()
