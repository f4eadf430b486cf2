"""Compares the memory estimate with measured peaks: python benchmarks/estimate_vs_measured.py MEASURED.json

MEASURED.json is what `record_memory.py` wrote. Prints one JSON line per row, and a last line for the networks that the
constants of the estimate were set by and for those that were held out: errors of allocated and reserved memory as
shares of the measured figure (positive: estimated too high) where 1 GiB or more was reserved, and in MiB below.
"""

from __future__ import annotations

import json
import statistics
import sys
from functools import cache
from pathlib import Path
from typing import Any

from record_memory import CLASSES, SET_BY

from tune_cropshield.memory.predict.estimate import MemoryEstimate, estimate_memory

GIB_IN_MIB = 1024


@cache
def _estimate(model: str, image_size: int, precision: Any, channels_last: bool) -> MemoryEstimate:
    return estimate_memory(model, CLASSES, image_size, precision, channels_last=channels_last)


def _compared(measured: dict[str, Any]) -> dict[str, Any]:
    row = {"accumulation": 1, "precision": "fp16", "channels_last": True, **measured}
    estimate = _estimate(row["model"], row["image_size"], row["precision"], row["channels_last"])
    for kind, figure in (("allocated", estimate.peak_allocated_mib), ("reserved", estimate.peak_reserved_mib)):
        estimated, actual = figure(row["micro_batch"], row["accumulation"]), row[f"max_{kind}_mib"]
        row[f"estimated_{kind}_mib"] = round(estimated, 1)
        row[f"{kind}_error"] = round(estimated / actual - 1, 4)
        row[f"{kind}_error_mib"] = round(estimated - actual, 1)
    return row


def _spread(errors: list[float]) -> dict[str, float]:
    return {"rows": len(errors), "lowest": min(errors), "median": statistics.median(errors), "highest": max(errors)}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    large = [row for row in rows if row["max_reserved_mib"] >= GIB_IN_MIB]
    small = [row for row in rows if row["max_reserved_mib"] < GIB_IN_MIB]
    return {
        kind: {
            **({"from_1_gib_share": _spread([row[f"{kind}_error"] for row in large])} if large else {}),
            **({"below_1_gib_mib": _spread([row[f"{kind}_error_mib"] for row in small])} if small else {}),
        }
        for kind in ("allocated", "reserved")
    }


def main() -> None:
    rows = []
    for measured in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["rows"]:
        rows.append(_compared(measured))
        print(json.dumps(rows[-1]), flush=True)
    groups = {
        "set_by": [row for row in rows if row["model"] in SET_BY and row["channels_last"]],
        "held_out": [row for row in rows if row["model"] not in SET_BY and row["channels_last"]],
        "not_channels_last": [row for row in rows if not row["channels_last"]],
    }
    print(json.dumps({name: _summary(group) for name, group in groups.items() if group}))


if __name__ == "__main__":
    main()
