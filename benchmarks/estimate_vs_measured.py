"""Compares the memory estimate with measured figures: python benchmarks/estimate_vs_measured.py MEASURED.json

Prints one JSON line per measured row, errors as shares of the measured figure (positive: estimated too high), and a
last line with the worst of them.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tune_cropshield.memory.predict.estimate import MemoryEstimate, estimate_memory

NAMES = {"custom": "cropshield_cnn"}
BATCH_SIZES_THAT_COUNT = 16  # below, a few MiB of scratch space are a large share of the peak


@cache
def _estimate(model: str, precision: Any, channels_last: bool) -> MemoryEstimate:
    start = time.perf_counter()
    estimate = estimate_memory(
        NAMES.get(model, model), num_classes=22, image_size=224, precision=precision, channels_last=channels_last
    )
    seconds = round(time.perf_counter() - start, 2)
    print(json.dumps({"traced": model, "precision": precision, "channels_last": channels_last, "seconds": seconds}))
    return estimate


def _rows(measured: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for row in measured["step"]:
        yield {"accumulation": 1, **row}
    for row in measured["clip_and_accumulation_fp16_channels_last"]:
        yield {"precision": "fp16", "channels_last": True, **row}


def _group(row: dict[str, Any]) -> str:
    return "fp32" if row["precision"] == "fp32" else "half_channels_last" if row["channels_last"] else "half_contiguous"


def _slopes(rows: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yields the error of MiB per image between neighbouring micro-batches from 64 on."""
    for low in rows:
        for high in rows:
            same = all(low[key] == high[key] for key in ("model", "precision", "channels_last", "accumulation"))
            if same and low["micro_batch"] >= 64 and high["micro_batch"] == 2 * low["micro_batch"]:
                estimated, actual = (
                    high[key] - low[key] for key in ("estimated_allocated_mib", "measured_allocated_mib")
                )
                yield _group(low), estimated / actual - 1


def main() -> None:
    rows = []
    for measured in _rows(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))):
        row = {key: measured[key] for key in ("model", "precision", "channels_last", "micro_batch", "accumulation")}
        estimate = _estimate(row["model"], row["precision"], row["channels_last"])
        for kind, figure in (("allocated", estimate.peak_allocated_mib), ("reserved", estimate.peak_reserved_mib)):
            estimated, actual = figure(row["micro_batch"], row["accumulation"]), measured[f"max_{kind}_mib"]
            row |= {f"estimated_{kind}_mib": round(estimated, 1), f"measured_{kind}_mib": actual}
            row |= {f"{kind}_error": round(estimated / actual - 1, 4)}
        print(json.dumps(row))
        rows.append(row)
    slopes = list(_slopes(rows))
    summary: dict[str, Any] = {}
    for group in sorted({_group(row) for row in rows}):
        errors = {
            kind: [
                row[f"{kind}_error"]
                for row in rows
                if _group(row) == group and row["micro_batch"] >= BATCH_SIZES_THAT_COUNT
            ]
            for kind in ("allocated", "reserved")
        }
        errors["mib_per_image"] = [error for slope_group, error in slopes if slope_group == group]
        summary[group] = {
            kind: {
                "lowest": round(min(values), 4),
                "median": round(statistics.median(values), 4),
                "highest": round(max(values), 4),
            }
            for kind, values in errors.items()
        }
    print(json.dumps({"summary": summary, "micro_batch_at_least": BATCH_SIZES_THAT_COUNT}))


if __name__ == "__main__":
    main()
