"""Does model.onnx say of whole photographs what `predict` says? Over every photograph of a folder, at four sizes.

    python benchmarks/onnx_vs_predict.py --data leaves/ results/runs/NAME/best
    python benchmarks/onnx_vs_predict.py --data leaves/ --sides 0 --limit 100 RUN_DIR...

Prints a JSON line per run and source size: photographs, same_class (of how many both say the same class) and
largest_difference of a probability. Side 0 is the photographs as they are; the others are resized to that shorter side,
every third to a square, a 4:3 landscape and a 2:3 portrait. Each is saved, and read again by `predict` and for the
network alike. The file is exported anew from each run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnxruntime
import torch
from environment import environment
from PIL import Image

from tune_cropshield.data.decode import decode_rgb
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.outcome.onnx import write_onnx
from tune_cropshield.outcome.predict import BATCH, predict
from tune_cropshield.outcome.trained import read_run

SIDES = (96, 0, 320, 700)  # px; 0: as they are
SHAPES = ((1, 1), (4, 3), (2, 3))  # width : height


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a JSON line per run and size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="OUT/best, OUT/t000 or `train`'s folder")
    parser.add_argument("--data", type=Path, required=True, help="the folder of photographs")
    parser.add_argument("--sides", type=int, nargs="+", default=SIDES, help="shorter sides in px; 0: as they are")
    parser.add_argument("--limit", type=int, default=None, help="so many photographs, evenly from all over the folder")
    arguments = parser.parse_args(argv)
    photographs, _ = photographs_below(arguments.data)
    if arguments.limit is not None:
        photographs = photographs[:: max(len(photographs) // arguments.limit, 1)][: arguments.limit]
    for run_dir in arguments.runs:
        with tempfile.TemporaryDirectory() as folder:
            write_onnx(run_dir, Path(folder) / "model.onnx")
            session = onnxruntime.InferenceSession(Path(folder) / "model.onnx", providers=["CPUExecutionProvider"])
            for side in arguments.sides:
                started = time.perf_counter()
                found = compare(run_dir, session, photographs, side, Path(folder))
                row = {"benchmark": "onnx_vs_predict", "run": str(run_dir), "side": side, **found}
                seconds = round(time.perf_counter() - started, 1)
                print(json.dumps(row | {"seconds": seconds, **environment()}), flush=True)


def compare(
    run_dir: Path, session: onnxruntime.InferenceSession, photographs: Sequence[Path], side: int, folder: Path
) -> dict[str, float | int]:
    """Returns how far the two agree on photographs of one size. folder: for the resized ones, a few at a time."""
    _, classes, _ = read_run(run_dir)
    same_class, largest = 0, 0.0
    for start in range(0, len(photographs), BATCH):
        batch = list(photographs[start : start + BATCH])
        if side:
            batch = [resized(path, side, start + number, folder) for number, path in enumerate(batch)]
        for prediction in predict(run_dir, batch, torch.device("cpu")):
            pixels = np.asarray(decode_rgb(prediction.path))
            (shares_K,) = session.run(["probabilities"], {"images": pixels[None]})[0]
            expected_K = np.array([prediction.probabilities[name] for name in classes])
            same_class += int(shares_K.argmax() == expected_K.argmax())
            largest = max(largest, float(np.abs(shares_K - expected_K).max()))
    return {"photographs": len(photographs), "same_class": same_class, "largest_difference": largest}


def resized(path: Path, side: int, number: int, folder: Path) -> Path:
    """Returns a copy of a photograph whose shorter side is `side` px, in the shape that its number gives."""
    width, height = SHAPES[number % len(SHAPES)]
    shorter = min(width, height)
    target = folder / f"{number % BATCH}.bmp"
    decode_rgb(path).resize((side * width // shorter, side * height // shorter), Image.Resampling.BICUBIC).save(target)
    return target


if __name__ == "__main__":
    main()
