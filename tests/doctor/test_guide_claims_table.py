"""benchmarks/guide_claims.py: what doctor printed becomes a CSV and a README."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "guide_claims.py"
CLAIM = {
    "key": "vram-4060-cnn-32",
    "quantity": "vram",
    "says": "~6-7GB",
    "low": 6,
    "high": 7,
    "unit": "GB",
    "places": ["GUIDE 749"],
    "model": "cropshield_cnn",
    "pair": "32x1",
    "card": "rtx4060-laptop",
    "value": 3.45678,
    "source": "measured",
    "holds": False,
    "verdict": "3.46 GB, not 6 to 7 (58% of it)",
    "note": "3040 MiB reserved",
}
FOUND = {
    "device": "cuda",
    "machine": {
        "gpu": "NVIDIA H200",
        "driver": "570",
        "cores": 16,
        "python": "3.12.3",
        "versions": {"torch": "2.11.0"},
    },
    "loading": {
        "stock_images_per_s": 160.25,
        "store_images_per_s": 9000.0,
        "decode_images_per_s": 500.0,
        "image_size": 224,
        "images": 256,
    },
    "steps": {"cropshield_cnn": {"images_per_s": {"fp32": 1233.04}, "how": "32 x 1 at 224 px"}},
    "claims": [
        CLAIM,
        {
            **CLAIM,
            "key": "clip-saves-epochs",
            "says": "~4-5% faster overall",
            "value": None,
            "holds": None,
            "note": "no run shows it",
        },
    ],
    "seconds": 120.4,
}


def test_the_table_the_speeds_and_the_readme_are_written(tmp_path: Path) -> None:
    (tmp_path / "doctor.json").write_text(json.dumps(FOUND))

    subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "doctor.json", "--out", tmp_path / "out"],
        check=True,
        capture_output=True,
        timeout=100,
    )

    with open(tmp_path / "out" / "claims.csv", newline="") as file:
        measured, unmeasured = csv.DictReader(file)
    assert (measured["key"], measured["value"], measured["places"], measured["holds"]) == (
        "vram-4060-cnn-32",
        "3.457",
        "GUIDE:749",
        "False",
    )
    assert (unmeasured["key"], unmeasured["value"]) == ("clip-saves-epochs", "")
    assert (tmp_path / "out" / "speeds.csv").read_text().splitlines() == [
        "model,variant,images_per_s,how",
        ',stock,160.2,"224 px, 256 photographs"',
        ',store,9000.0,"224 px, 256 photographs"',
        ',decode,500.0,"224 px, 256 photographs"',
        "cropshield_cnn,fp32,1233.0,32 x 1 at 224 px",
    ]
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "# Do the training guide's figures hold on NVIDIA H200?" in readme
    assert "| ~6-7GB | GUIDE 749 | 3.46 GB, not 6 to 7 (58% of it) | measured: 3040 MiB reserved |" in readme
    assert "- ~4-5% faster overall: no run shows it" in readme
