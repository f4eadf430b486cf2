"""`predict`: photographs -> classes and probabilities."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from typing import TYPE_CHECKING, Any

from tune_cropshield.commands import arguments
from tune_cropshield.errors import UserError
from tune_cropshield.files import as_utf8, printable

if TYPE_CHECKING:
    from tune_cropshield.outcome.predict import Prediction


CSV_COLUMNS = ("photograph", "predicted", "probability", "error")


HELP = "classify photographs"
DESCRIPTION = "Prints each photograph's class and probability."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument(
        "run_dir",
        type=arguments.path,
        metavar="RUN_DIR",
        help="folder of a trained network (with config.toml and model.safetensors), like OUT/best; or a search, by its "
        "folder or its name in results/runs: its best network",
    )
    parser.add_argument(
        "images", type=arguments.path, nargs="+", metavar="IMAGE", help="photographs, or folders of photographs"
    )
    printed = parser.add_mutually_exclusive_group()
    printed.add_argument(
        "--json", action="store_true", help="print one JSON list with the probability of every class, for programs"
    )
    printed.add_argument(
        "--csv", action="store_true", help="print a CSV table: photograph, predicted, probability, error"
    )


def run(args: argparse.Namespace) -> int:
    """Prints a line per photograph: path, class, probability; with --json one list, with --csv a table.

    What lies in a folder and is no photograph is told on stderr.

    Raises UserError when some, which are named, were unreadable.
    """
    from tune_cropshield.api.predict import predictions

    faults = []
    rows = []
    table = csv.writer(sys.stdout, lineterminator="\n")
    if args.csv:
        table.writerow(CSV_COLUMNS)
    for prediction in predictions(args.run_dir, args.images, lambda line: print(printable(line), file=sys.stderr)):
        faults.append(prediction.fault is not None)
        if args.json:
            rows.append(_as_json(prediction))
        elif args.csv:
            table.writerow(_as_row(prediction))
        else:
            _print(prediction)
    if args.json:
        print(json.dumps(rows, indent=2))
    if any(faults):
        raise UserError(f"{sum(faults)} of {len(faults)} photographs cannot be read")
    return 0


def _print(prediction: Prediction) -> None:
    if prediction.fault is not None:
        print(f"{printable(prediction.path)}\tunreadable\t{prediction.fault}")
        return
    name, share = next(iter(prediction.probabilities.items()))
    print(f"{printable(prediction.path)}\t{name}\t{share:.4f}")


def _as_json(prediction: Prediction) -> dict[str, Any]:
    if prediction.fault is not None:
        return {"path": as_utf8(str(prediction.path)), "error": prediction.fault}
    name, share = next(iter(prediction.probabilities.items()))
    return {
        "path": as_utf8(str(prediction.path)),
        "class": name,
        "probability": share,
        "probabilities": prediction.probabilities,
    }


def _as_row(prediction: Prediction) -> tuple[object, ...]:
    if prediction.fault is not None:
        return as_utf8(str(prediction.path)), "", "", prediction.fault
    name, share = next(iter(prediction.probabilities.items()))
    return as_utf8(str(prediction.path)), name, share, ""
