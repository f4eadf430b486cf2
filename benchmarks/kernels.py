"""Images per second of a trial's own loop in each precision and memory layout, one after another in one process.

    python benchmarks/kernels.py --model tiny_cnn --image-size 64 --effective-batch 32 --threads 1     # a CPU: what the rule for "auto" goes by
    python benchmarks/kernels.py --model efficientnet_b0 --image-size 160 --effective-batch 64         # a GPU: what a search measures there

One JSON line with the medians over `--repeats` turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
from typing import Literal

import torch
from environment import environment

from tune_cropshield.config import TrialConfig
from tune_cropshield.memory.packed_step import Share
from tune_cropshield.memory.packing import measure_each

PRECISIONS: tuple[Literal["fp32", "bf16", "fp16"], ...] = ("fp32", "bf16", "fp16")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny_cnn")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--effective-batch", type=int, default=32)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    cuda = torch.cuda.is_available()
    fixed = {name: vars(arguments)[name] for name in ("model", "image_size", "effective_batch", "threads")}
    shares = {
        f"{precision} {'channels_last' if channels_last else 'contiguous'}": Share(
            TrialConfig(**fixed, precision=precision, channels_last=channels_last, max_norm=1.0, epochs=1), 15, None, "cuda:0" if cuda else "cpu"
        )
        for precision in (PRECISIONS if cuda else PRECISIONS[:2])
        for channels_last in (True, False)
    }
    turns = [measure_each(shares, arguments.seconds) for _ in range(arguments.repeats)]
    speeds = {name: round(statistics.median(turn[name] for turn in turns)) for name in shares}
    print(json.dumps({"benchmark": "kernels", **fixed, "repeats": arguments.repeats, "images_per_s": speeds, **environment()}))


if __name__ == "__main__":
    main()
