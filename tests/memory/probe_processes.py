"""What a probe's process may do instead of measuring: `python -m probe_processes NAME`, without PyTorch."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from tune_cropshield.memory.measure.child import take_stdout

Messages = Iterator[dict[str, Any]]


def fitting(micro_batch: int, reserved_mib: float, images_per_s: float, context_mib: float) -> dict[str, Any]:
    point = {
        "micro_batch": micro_batch,
        "cap_mib": 1000.0,
        "peak_allocated_mib": reserved_mib - 10,
        "peak_reserved_mib": reserved_mib,
        "images_per_s": images_per_s,
    }
    return {"point": point, "context_mib": context_mib}


def dies_at_64(request: dict[str, Any], messages: Messages) -> Iterator[dict[str, Any]]:
    """Answers with its process id as reserved memory; 64 images are its end."""
    for message in messages:
        if message["micro_batch"] == 64:
            os._exit(3)
        yield fitting(message["micro_batch"], float(os.getpid()), 1.0, 450.0)


def loses_its_context(request: dict[str, Any], messages: Messages) -> Iterator[dict[str, Any]]:
    next(messages)
    yield {"failure": "CUDA error: an illegal memory access was encountered", "dead": True}


def has_a_fault(request: dict[str, Any], messages: Messages) -> Iterator[dict[str, Any]]:
    next(messages)
    yield {"failure": "Traceback: ...\nZeroDivisionError: division by zero", "dead": False}


def hangs(request: dict[str, Any], messages: Messages) -> Iterator[dict[str, Any]]:
    next(messages)
    time.sleep(100)
    yield {}


def small_card(request: dict[str, Any], messages: Messages) -> Iterator[dict[str, Any]]:
    """Reserves 100 MiB and 40 for each image, and is faster the more there are, up to 64; its context takes 700 MiB."""
    for message in messages:
        size = message["micro_batch"]
        need = 100.0 + 40.0 * size
        if need <= request["share_mib"]:
            yield fitting(size, need, 10.0 * min(size, 64), 700.0)
        else:
            point = {"micro_batch": size, "cap_mib": request["share_mib"], "reason": "CUDA out of memory"}
            yield {"point": point, "context_mib": 700.0}


if __name__ == "__main__":
    run: Callable[[dict[str, Any], Messages], Iterator[dict[str, Any]]] = globals()[sys.argv[1]]
    answers = take_stdout()
    messages = (json.loads(line) for line in sys.stdin)
    request = next(messages)
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for answer in run(request, messages):
        print(json.dumps(answer), file=answers, flush=True)
