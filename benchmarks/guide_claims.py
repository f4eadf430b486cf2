"""Lays the guide's figures beside those that `doctor` measured: a table and a CSV for results/.

    tune-cropshield doctor --data DIR --json > doctor.json
    python benchmarks/guide_claims.py doctor.json --out results/guide_claims_h200_2026-11

OUT/claims.csv has a row per claim and network, OUT/speeds.csv the images per second behind them, OUT/README.md the
tables with a place for what a person has to add. The README is not written over: delete it to have it made anew.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from environment import commit

COLUMNS = (
    "key",
    "model",
    "pair",
    "says",
    "low",
    "high",
    "unit",
    "places",
    "value",
    "source",
    "holds",
    "verdict",
    "note",
)


def main() -> None:
    """Writes the files and says where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("examination", type=Path, metavar="doctor.json", help="what `doctor --json` printed")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    arguments = parser.parse_args()
    found = json.loads(arguments.examination.read_text(encoding="utf-8"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_csv(arguments.out / "claims.csv", COLUMNS, [claim_row(claim) for claim in found["claims"]])
    write_csv(arguments.out / "speeds.csv", ("model", "variant", "images_per_s", "how"), list(speed_rows(found)))
    readme = arguments.out / "README.md"
    if not readme.exists():
        readme.write_text(readme_text(found), encoding="utf-8")
    print(f"{len(found['claims'])} claims in {arguments.out}")


def claim_row(claim: dict[str, Any]) -> dict[str, Any]:
    """Returns a claim as a row of the CSV."""
    row = {name: claim[name] for name in COLUMNS}
    value = None if claim["value"] is None else f"{claim['value']:.4g}"
    return row | {"places": " ".join(place.replace(" ", ":") for place in claim["places"]), "value": value}


def speed_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the speed of each variant of the step, and of both loaders."""
    loading = found["loading"]
    how = f"{loading['image_size']} px, {loading['images']} photographs"
    rows = [
        {"model": "", "variant": name, "images_per_s": round(loading[f"{name}_images_per_s"], 1), "how": how}
        for name in ("stock", "store", "decode")
    ]
    for model, steps in found["steps"].items():
        rows += [
            {"model": model, "variant": name, "images_per_s": round(rate, 1), "how": steps["how"]}
            for name, rate in steps["images_per_s"].items()
        ]
    return rows


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def readme_text(found: dict[str, Any]) -> str:
    """Returns the README: what it was measured on, a table per network, the loaders, what could not be measured."""
    machine, loading = found["machine"], found["loading"]
    device = f"{machine['gpu']}, driver {machine['driver']}" if machine["gpu"] else "CPU, no GPU"
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"# Do the training guide's figures hold on {machine['gpu'] or 'a CPU'}?",
        "",
        (
            f"{device}, {machine['cores']} cores, Python {machine['python']}, {versions}, commit {commit()}. One "
            f"run, {found['seconds']:.0f} s."
        ),
        "Speeds are this device's, not a laptop's. GUIDE and NOTES are lines of the guide's two documents.",
        "",
        "    tune-cropshield doctor --data DIR --json > doctor.json",
        "    python benchmarks/guide_claims.py doctor.json --out OUT",
    ]
    for model in sorted({claim["model"] for claim in found["claims"]}):
        known = [claim for claim in found["claims"] if claim["model"] == model and claim["value"] is not None]
        lines += ["", f"## {model}", "", "| the guide | place | here | how |", "|---|---|---|---|"]
        lines += [
            f"| {claim['says']} | {', '.join(claim['places'])} | {claim['verdict']} | {how_of(claim)} |"
            for claim in known
        ]
    lines += [
        "",
        "## Loading",
        "",
        f"One process of a stock loader gives {loading['stock_images_per_s']:.0f} images/s at "
        f"{loading['image_size']} px, our store "
        f"{loading['store_images_per_s']:.0f}, augmented on the device (`speeds.csv`).",
    ]
    unknown = sorted({(claim["says"], claim["note"]) for claim in found["claims"] if claim["value"] is None})
    if unknown:
        lines += ["", "## Not measured", "", *(f"- {says}: {why}" for says, why in unknown)]
    return "\n".join(lines) + "\n"


def how_of(claim: dict[str, Any]) -> str:
    """Returns where a figure comes from."""
    return f"{claim['source']}: {claim['note']}" if claim["note"] else str(claim["source"])


if __name__ == "__main__":
    main()
