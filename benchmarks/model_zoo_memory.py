"""Compares the memory estimate with the probe for the networks of model_zoo.py: python benchmarks/model_zoo_memory.py

For each network at 224 px, and 16 and 64 images at once, the estimate is what `plan --estimate` says, and the probe
what `plan` measures on the GPU: updates of two micro-batches, in a process of its own. Prints a JSON line for each,
with both figures and the estimate's error as a share of the measured one (positive: estimated too high), and at last a
line with the range of the errors where 1 GiB or more is reserved. Takes about four minutes on one GPU.

    --device cpu    runs the same steps on the CPU, where nothing is measured, at 64 px: to see that all of them run
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from environment import environment
from model_zoo import NETWORKS, short

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.errors import EstimateUnavailable, RunFailure
from tune_cropshield.memory.choose.for_gpu import estimate_for
from tune_cropshield.memory.measure.points import Point
from tune_cropshield.memory.measure.process import Probe, Request

CLASSES, MICRO_BATCHES, ACCUMULATION = 22, (16, 64), 2
GIB_IN_MIB = 1024
SHARE_MIB = 60_000.0  # what the probe may reserve


def compared(trial: TrialConfig, point: Point) -> dict[str, Any]:
    """Returns what the estimate and the probe say of one micro-batch, in MiB, and how far they are apart."""
    row: dict[str, Any] = {"model": short(trial.model), "image_size": trial.image_size}
    row |= {"micro_batch": point.micro_batch, "images_per_s": point.images_per_s, "reason": point.reason}
    measured = {"allocated": point.peak_allocated_mib, "reserved": point.peak_reserved_mib}
    try:
        estimate = estimate_for(trial, CLASSES)
    except EstimateUnavailable as error:
        return row | {"measured_mib": measured, "no_estimate": str(error)}
    estimated = {
        "allocated": estimate.peak_allocated_mib(point.micro_batch, ACCUMULATION),
        "reserved": estimate.peak_reserved_mib(point.micro_batch, ACCUMULATION),
    }
    errors = {kind: round(estimated[kind] / found - 1, 4) for kind, found in measured.items() if found}
    return row | {"estimated_mib": estimated, "measured_mib": measured, "error": errors}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--models", nargs="+", default=[short(model) for model in NETWORKS])
    arguments = parser.parse_args()
    device, size = ("cuda:0", 224) if arguments.device == "cuda" else ("cpu", 64)
    errors: dict[str, list[float]] = {"allocated": [], "reserved": []}
    for model, head in NETWORKS.items():
        if short(model) not in arguments.models:
            continue
        trial = TrialConfig(model=model, head=head or None, image_size=size)
        with Probe(Request(trial, CLASSES, SHARE_MIB, device)) as probe:
            for micro_batch in MICRO_BATCHES:
                try:
                    row = compared(trial, probe.measure(micro_batch))
                except RunFailure as error:
                    row = {"model": short(model), "micro_batch": micro_batch, "failed": str(error)[-300:]}
                print(json.dumps(row | environment()), flush=True)
                if (row.get("measured_mib", {}).get("reserved") or 0) >= GIB_IN_MIB:
                    for kind, error in row.get("error", {}).items():
                        errors[kind].append(error)
    ranges = {kind: [min(found), max(found)] for kind, found in errors.items() if found}
    print(json.dumps({"error_from_1_gib": ranges, "rows": len(errors["reserved"])}))


if __name__ == "__main__":
    main()
