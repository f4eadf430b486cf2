"""Measures how long a table of labels takes to be read and checked, with all its photographs there.

    python benchmarks/label_table.py --rows 50000

Makes files and tables of that many rows in a temporary folder, and times what `search` does with each before anything
else: the table is read, every file is looked for, and labels, split, groups, folds and weights are checked. Prints one
JSON line; seconds are the medians over the repetitions.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from pathlib import Path

from environment import environment

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.sources import check_photographs

CLASSES, FOLDERS, PLANT = 38, 20, 5  # PLANT: photographs of one plant
COLUMNS = ("path", "label", "split", "group", "fold", "weight")


def make(folder: Path, rows: int) -> dict[str, tuple[Path, DataConfig]]:
    """Makes `rows` files in `folder` and returns {form of the table: (its file, how it is read)}."""
    table = []
    for number in range(rows):
        plant = number // PLANT
        path = f"images/{plant % FOLDERS:02d}/leaf_{number:06d}.jpg"
        side = ("train", "train", "train", "val", "test")[plant % 5]
        table.append((path, f"class_{plant % CLASSES:02d}", side, f"plant{plant}", plant % 4, 1 + number % 3))
    for part in range(FOLDERS):
        (folder / "images" / f"{part:02d}").mkdir(parents=True)
    for path, *_ in table:
        (folder / path).write_bytes(b"\xff\xd8\xff")
    whole, bare = folder / "labels.csv", folder / "without_suffix.csv"
    with whole.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *table])
    with bare.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image_id", "label"), *((row[0].removesuffix(".jpg"), row[1]) for row in table)])
    import pyarrow
    from pyarrow import parquet

    binary = folder / "labels.parquet"
    parquet.write_table(pyarrow.table(dict(zip(COLUMNS, map(list, zip(*table, strict=True)), strict=True))), binary)
    return {
        "csv": (whole, DataConfig(labels=str(whole))),
        "csv_without_suffixes": (bare, DataConfig(labels=str(bare), columns={"path": "image_id"})),
        "parquet": (binary, DataConfig(labels=str(binary))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        tables = make(Path(place), arguments.rows)
        check_photographs(tables["parquet"][1])  # imports
        seconds = {}
        for form, (_, config) in tables.items():
            taken = []
            for _ in range(arguments.repeats):
                began = time.perf_counter()
                check_photographs(config)
                taken.append(time.perf_counter() - began)
            seconds[form] = round(statistics.median(taken), 2)
    print(json.dumps({"rows": arguments.rows, "repeats": arguments.repeats, "seconds": seconds, **environment()}))


if __name__ == "__main__":
    main()
