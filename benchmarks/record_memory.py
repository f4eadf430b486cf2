"""Measures what training steps of many networks need of a GPU's memory: the test set of the memory estimate.

    python benchmarks/record_memory.py --out MEASURED.json [--ops OPS.json] [--models NAME...]

A bare PyTorch loop, none of this project's training code: random images on the GPU, autocast, gradient scaling,
clipping by norm, fused AdamW, six steps. Each row is a process of its own, several at a time: their memory is counted
by process. Rows: network, image size, micro-batch, accumulation, precision, channels_last, and PyTorch's own peaks
(`max_memory_allocated`, `max_memory_reserved`).

`--ops` also writes, for each convolution of one more step, the scratch space that it took beside its results.
`estimate_vs_measured.py` compares the estimate with the rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from environment import environment
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tune_cropshield.config.units import MIB
from tune_cropshield.training.models import build_model

STEPS = 6
CLASSES = 22
# The rules and constants of the estimate were found with the first half and judged with the second while they were
# written; the last networks were measured when they stood.
SET_BY = (
    "efficientnet_b0", "resnet50", "cropshield_cnn", "resnet18", "mobilenet_v3_large", "densenet121", "convnext_tiny",
    "regnet_x_800mf", "vgg11_bn", "vit_b_16", "mnasnet0_75", "wide_resnet50_2",
)  # fmt: skip
HELD_OUT = (
    "resnet34", "regnet_y_400mf", "shufflenet_v2_x1_0", "mobilenet_v2", "efficientnet_v2_s", "squeezenet1_1", "swin_t",
    "resnext50_32x4d", "googlenet", "resnet101", "mobilenet_v3_small", "vgg16",
)  # fmt: skip
AFTERWARDS = (
    "efficientnet_b2", "regnet_x_1_6gf", "regnet_y_800mf", "shufflenet_v2_x1_5", "mnasnet1_3", "densenet169",
    "convnext_small", "swin_v2_t", "vit_b_32", "resnet152", "inception_v3", "alexnet", "vgg13_bn", "squeezenet1_0",
)  # fmt: skip


class Convolutions(TorchDispatchMode):
    """Notes each convolution's shapes, and the bytes that it held for a moment beside what it was given and returns."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        forward = func is torch.ops.aten.convolution.default
        if not forward and func is not torch.ops.aten.convolution_backward.default:
            return func(*args, **(kwargs or {}))
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        count = torch.cuda.memory_stats()["allocation.all.allocated"]
        results = func(*args, **(kwargs or {}))
        count = torch.cuda.memory_stats()["allocation.all.allocated"] - count
        scratch = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
        images, weight, stride, padding, dilation, groups = (
            (args[0], args[1], args[3], args[4], args[5], args[8])
            if forward
            else (args[1], args[2], args[4], args[5], args[6], args[9])
        )
        self.rows.append(
            {
                "backward": not forward,
                "images": list(images.shape),
                "weight": list(weight.shape),
                "stride": list(stride),
                "padding": list(padding),
                "dilation": list(dilation),
                "groups": groups,
                "dtype": str(images.dtype).removeprefix("torch."),
                "channels_last": images.is_contiguous(memory_format=torch.channels_last),
                "weight_channels_last": weight.is_contiguous(memory_format=torch.channels_last),
                "wanted": None if forward else list(args[10]),
                "allocations": count,
                "scratch_bytes": scratch,
            }
        )
        return results


def measure(row: dict[str, Any], with_ops: bool) -> dict[str, Any]:
    """Returns `row` with the peaks of a bare loop in MiB, and with its convolutions."""
    torch.manual_seed(0)
    half = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(row["precision"])
    layout = torch.channels_last if row["channels_last"] else torch.contiguous_format
    model = build_model(row["model"], CLASSES).cuda().to(memory_format=layout).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler("cuda", enabled=row["precision"] == "fp16")
    side, batch = row["image_size"], row["micro_batch"]
    images_BCHW = torch.randn(batch, 3, side, side, device="cuda").contiguous(memory_format=layout)
    classes_B = torch.randint(CLASSES, (batch,), device="cuda")
    torch.cuda.reset_peak_memory_stats()
    for _ in range(STEPS):
        _step(model, optimizer, scaler, images_BCHW, classes_B, half, row["accumulation"])
    torch.cuda.synchronize()
    measured = row | {
        "max_allocated_mib": torch.cuda.max_memory_allocated() / MIB,
        "max_reserved_mib": torch.cuda.max_memory_reserved() / MIB,
    }
    if with_ops:
        convolutions = Convolutions()
        with convolutions:
            _step(model, optimizer, scaler, images_BCHW, classes_B, half, 1)
        measured["convolutions"] = convolutions.rows
    return measured


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    images_BCHW: Tensor,
    classes_B: Tensor,
    half: torch.dtype | None,
    accumulation: int,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    for _ in range(accumulation):
        with torch.autocast("cuda", dtype=half, enabled=half is not None):
            loss = F.cross_entropy(model(images_BCHW), classes_B) / accumulation
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()


def rows_to_measure(models: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yields each network at two sizes and micro-batches in fp16; four of each half in other ways too."""

    def row(
        model: str, size: int, batch: int, accumulation: int = 1, precision: str = "fp16", last: bool = True
    ) -> Any:
        return {
            "model": model, "image_size": size, "micro_batch": batch, "accumulation": accumulation,
            "precision": precision, "channels_last": last,
        }  # fmt: skip

    for model in models:
        for size in (224,) if model.startswith("vit") else (160, 256) if model == "inception_v3" else (128, 256):
            for batch in (16, 64):
                yield row(model, size, batch)
        yield row(model, 224, 32, accumulation=2)
    for model in (*SET_BY[:4], *HELD_OUT[:4]):
        if model in models:
            yield row(model, 224, 64, precision="bf16")
            yield row(model, 224, 64, precision="fp32")
            yield row(model, 224, 64, precision="fp32", last=False)
            yield row(model, 224, 64, last=False)


def _in_a_process(row: dict[str, Any], with_ops: bool) -> dict[str, Any] | None:
    command = [sys.executable, __file__, "--row", json.dumps(row), *(["--ops", "-"] if with_ops else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(json.dumps(row), done.stderr[-500:], file=sys.stderr, flush=True)
        return None
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps({key: value for key, value in measured.items() if key != "convolutions"}), flush=True)
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--ops", type=Path)
    parser.add_argument("--models", nargs="+", default=[*SET_BY, *HELD_OUT])
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--row", help="one row, for the processes that this starts")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(json.loads(arguments.row), with_ops=arguments.ops is not None)))
        return
    rows = list(rows_to_measure(tuple(arguments.models)))
    with ThreadPoolExecutor(arguments.jobs) as pool:
        measured = [row for row in pool.map(lambda row: _in_a_process(row, arguments.ops is not None), rows) if row]
    if arguments.ops:
        arguments.ops.write_text(json.dumps(measured), encoding="utf-8")
    lean = [{key: value for key, value in row.items() if key != "convolutions"} for row in measured]
    arguments.out.write_text(json.dumps(environment() | {"rows": lean}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
