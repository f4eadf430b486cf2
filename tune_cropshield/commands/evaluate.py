"""`evaluate`: a trained network on the validation or the test split."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tune_cropshield.api.evaluate import EvaluationResult

PIPE_WIDTH = 300  # characters; a pipe has no edge to fold names at


def run(args: argparse.Namespace) -> int:
    """Prints accuracy, macro F1 and a table of the classes, and writes the confusion matrix."""
    from tune_cropshield.api.evaluate import evaluate

    result = evaluate(args.run_dir, data=args.data, split=args.split, to=args.to)
    if args.json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        _print(result)
    return 0


def _print(result: EvaluationResult) -> None:
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(f"{result.split}: {result.photographs} photographs")
    table = Table(box=None)
    for name in ("class", "precision", "recall", "F1", "photographs"):
        is_class = name == "class"
        table.add_column(
            name,
            justify="left" if is_class else "right",
            overflow="fold",
            min_width=None if is_class else max(len(name), 6),
        )
    for row in result.class_rows():
        shares = ["-" if row[name] is None else f"{row[name]:.4f}" for name in ("precision", "recall", "F1")]
        table.add_row(Text(row["class"]), *shares, str(row["photographs"]))
    console.print(table)
    console.print(f"{result.split}_acc {result.accuracy!r}")
    console.print(f"macro F1 {result.macro_f1:.4f}   loss {result.loss:.4f}")
    console.print(Text(f"confusion matrix: {result.table} and {result.picture.name}"))
