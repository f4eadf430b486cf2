"""`predict`: photographs -> classes and probabilities."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from tune_cropshield.errors import UserError

if TYPE_CHECKING:
    from tune_cropshield.outcome.predict import Prediction


def run(args: argparse.Namespace) -> int:
    """Prints a line per photograph: path, class, probability; with --json, one list.

    Raises UserError when some, which are named, were unreadable.
    """
    from tune_cropshield.api.predict import predictions

    faults = []
    rows = []
    for prediction in predictions(args.run_dir, args.images):
        faults.append(prediction.fault is not None)
        if args.json:
            rows.append(_as_json(prediction))
        else:
            _print(prediction)
    if args.json:
        print(json.dumps(rows, indent=2))
    if any(faults):
        raise UserError(f"{sum(faults)} of {len(faults)} photographs cannot be read")
    return 0


def _print(prediction: Prediction) -> None:
    if prediction.fault is not None:
        print(f"{prediction.path}\tunreadable\t{prediction.fault}")
        return
    name, share = next(iter(prediction.probabilities.items()))
    print(f"{prediction.path}\t{name}\t{share:.4f}")


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
