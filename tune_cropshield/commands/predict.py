"""`predict`: photographs -> classes and probabilities."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.device import find_device
from tune_cropshield.errors import UserError

if TYPE_CHECKING:
    from tune_cropshield.outcome.predict import Prediction


def run(args: argparse.Namespace) -> int:
    """Prints a line per photograph: path, class, probability; with --json, one list. Raises UserError when some, which
    are named, were unreadable.
    """
    from tune_cropshield.outcome.trained import read_run

    read_run(args.run_dir)  # a wrong folder is told about before seconds of imports
    photographs = _photographs(args.images)
    import torch

    from tune_cropshield.outcome.predict import predict

    predictions = predict(args.run_dir, photographs, torch.device(find_device("auto")))
    if args.json:
        found = list(predictions)
        print(json.dumps([_as_json(prediction) for prediction in found], indent=2))
        unreadable = sum(prediction.fault is not None for prediction in found)
    else:
        unreadable = sum(_print(prediction) for prediction in predictions)
    if unreadable:
        raise UserError(f"{unreadable} of {len(photographs)} photographs cannot be read")
    return 0


def _print(prediction: Prediction) -> bool:
    """Prints one line, and tells whether the photograph was unreadable."""
    if prediction.fault is not None:
        print(f"{prediction.path}\tunreadable\t{prediction.fault}")
        return True
    name, share = next(iter(prediction.probabilities.items()))
    print(f"{prediction.path}\t{name}\t{share:.4f}")
    return False


def _as_json(prediction: Prediction) -> dict[str, Any]:
    if prediction.fault is not None:
        return {"path": str(prediction.path), "error": prediction.fault}
    name, share = next(iter(prediction.probabilities.items()))
    return {
        "path": str(prediction.path),
        "class": name,
        "probability": share,
        "probabilities": prediction.probabilities,
    }


def _photographs(given: list[Path]) -> list[Path]:
    """Returns the photographs named, and those inside the folders named, each once; raises UserError for what is not
    there.
    """
    from tune_cropshield.data.folder import IMAGE_SUFFIXES, images_below

    missing = [path for path in given if not path.exists()]
    if missing:
        raise UserError("\n".join(f"{path}: no such photograph or folder" for path in missing))
    try:
        found = list(
            dict.fromkeys(file for path in given for file in (images_below(path) if path.is_dir() else [path]))
        )
    except PermissionError as error:
        raise UserError(f"no permission to read {error.filename}") from None
    if not found:
        raise UserError(f"no photographs ({' '.join(IMAGE_SUFFIXES)}) in {', '.join(str(path) for path in given)}")
    return found
