"""`evaluate`: a trained network on its own validation or test photographs, or on any other folder."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_cropshield.commands import arguments
from tune_cropshield.outcome import words
from tune_cropshield.outcome.one_answer import one_answer_line, pairs_of
from tune_cropshield.terminal import say

if TYPE_CHECKING:
    from tune_cropshield.api.evaluate import EvaluationResult

PIPE_WIDTH = 300  # characters; a pipe has no edge to fold names at


HELP = "evaluate a trained network"
DESCRIPTION = "Prints a trained network's accuracy, macro F1 and a table of classes."


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
        "--data",
        type=arguments.path,
        metavar="DIR",
        help="folder with one sub-folder of photographs per class (default: the one it was trained on)",
    )
    arguments.add_labels(parser)
    parser.add_argument(
        "--split",
        choices=("val", "test", "all"),
        help=(
            "val or test: the network's own validation or test photographs (use test only once, for the final "
            "network); all: every photograph in the folder (default: val for the folder it was trained on, all for "
            "another one)"
        ),
    )
    parser.add_argument(
        "--to",
        type=arguments.path,
        metavar="DIR",
        help="folder for the confusion matrix and the predictions, .csv and .png (default: RUN_DIR)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints accuracy, macro F1 and a table of the classes; writes the confusion matrix and all predictions."""
    from tune_cropshield.api.evaluate import evaluate

    result = evaluate(
        args.run_dir, data=args.data, labels=args.labels, columns=args.columns, split=args.split, to=args.to
    )
    if args.json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        _print(result)
    return 0


def _print(result: EvaluationResult) -> None:
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    expected = words.counted(result.expected, "photograph")
    say(console, f"{result.split}: {result.photographs} of {expected} in {result.data}")
    for remark in result.remarks:
        say(console, remark)
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
    say(console, f"{result.split}_acc {words.accuracy(result.accuracy)}")
    say(console, f"{result.right} of {result.photographs} right{_on_others(result)}")
    present = result.classes_present
    over = "" if present == len(result.classes) else f" over the {present} classes that have photographs here"
    say(console, f"macro F1 {result.macro_f1:.4f}{over}   loss {result.loss:.4f}")
    say(console, f"balanced accuracy {result.balanced_accuracy:.4f}   AUC {words.accuracy(result.auc)}")
    for name, value in result.own_metric.items():
        say(console, f"{name} {value:.4f}")
    if (line := one_answer_line(pairs_of(result.judged), result.split)) is not None:
        say(console, line)
    num_wrong = result.photographs - result.right
    say(console, f"every photograph's class: {result.predictions}; the {num_wrong} wrong ones: {result.wrong.name}")
    say(console, f"confusion matrix: {result.table} and {result.picture.name}")
    if result.report is not None:
        say(console, f"report: {result.report}")


def _on_others(result: EvaluationResult) -> str:
    """Returns what this says of photographs that the network has not met; "" where a remark has said it."""
    from tune_cropshield.data.split import VAL

    if result.split == VAL:
        return "; its epoch (and in a search the trial) was chosen with these photographs: expect less on new ones"
    if not result.new:
        return ""
    return (
        "; on other photographs of the same kind the accuracy is probably "
        f"{words.share_interval(result.accuracy_interval)} (95 % Wilson interval)"
    )
