"""`evaluate`: a trained network on the validation or the test split."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import RunConfig
from tune_cropshield.device import find_device
from tune_cropshield.errors import UserError
from tune_cropshield.files import check_can_be_made
from tune_cropshield.training.run_folder import CONFIG

if TYPE_CHECKING:
    from tune_cropshield.training.metrics import Evaluation

PIPE_WIDTH = 300  # characters; a pipe has no edge to fold names at


def run(args: argparse.Namespace) -> int:
    """Prints accuracy, macro F1 and a table of the classes, and writes the confusion matrix."""
    from tune_cropshield.outcome.trained import read_run

    config, classes, weights = read_run(args.run_dir)
    if args.data is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"dir": str(args.data.absolute())})})
    if not config.data.dir:
        raise UserError(f"{args.run_dir / CONFIG} names no photographs: give --data DIR")
    folder = args.to or args.run_dir
    check_can_be_made(folder, "--to")
    result = _evaluate(config, classes, weights, args.split)
    from tune_cropshield.outcome.confusion import write_confusion

    try:
        files = write_confusion(folder, args.split, result.confusion_KK.numpy(), classes)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}): give another folder (--to)") from None
    if args.json:
        print(json.dumps(_as_json(result, args.split, classes), indent=2))
    else:
        _print(result, args.split, classes, files)
    return 0


def _evaluate(config: RunConfig, classes: list[str], weights: Path, split: str) -> Evaluation:
    """Returns the network's figures on `split`; the photographs of the other splits are not looked at."""
    import torch

    from tune_cropshield.data.dataset import DeviceData, open_data
    from tune_cropshield.outcome.trained import load_trained
    from tune_cropshield.training.evaluate import Evaluator, split_batches
    from tune_cropshield.training.precision import DTYPES, resolve_precision

    trial = config.trial
    device = torch.device(find_device("auto"))
    if trial.threads is not None:
        torch.set_num_threads(trial.threads)
    data = open_data(config.data, {trial.final_size}, cache_dir())
    if list(data.classes) != classes:
        raise UserError(
            f"the classes of {config.data.dir} are not those it was trained on: "
            f"{', '.join(sorted(set(data.classes) ^ set(classes)))} differ"
        )
    precision = resolve_precision(trial.precision, device)
    batches = split_batches(trial, DeviceData(data, device), split, DTYPES[precision])
    return Evaluator(load_trained(trial, len(classes), weights, device), len(classes), precision, device).evaluate(
        batches
    )


def _as_json(result: Evaluation, split: str, classes: list[str]) -> dict[str, Any]:
    """Returns everything as one object; a share of nothing is null."""
    figures = {
        "split": split,
        "photographs": int(result.confusion_KK.sum()),
        "accuracy": result.accuracy,
        "macro_f1": result.macro_f1,
    }
    return {
        **figures,
        "loss": result.loss,
        "classes": _class_rows(result, classes),
        "confusion": result.confusion_KK.tolist(),
    }


def _class_rows(result: Evaluation, classes: list[str]) -> list[dict[str, Any]]:
    """Returns a row per class; precision of a class never predicted, recall of one never met and F1 of one neither met
    nor predicted are None.
    """
    right_K, met_K, predicted_K = (
        counts.tolist()
        for counts in (result.confusion_KK.diagonal(), result.confusion_KK.sum(1), result.confusion_KK.sum(0))
    )
    return [
        {
            "class": name,
            "precision": right / predicted if predicted else None,
            "recall": right / met if met else None,
            "F1": f1 if met or predicted else None,
            "photographs": met,
        }
        for name, right, met, predicted, f1 in zip(
            classes, right_K, met_K, predicted_K, result.f1_K.tolist(), strict=True
        )
    ]


def _print(result: Evaluation, split: str, classes: list[str], files: tuple[Path, Path]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(f"{split}: {int(result.confusion_KK.sum())} photographs")
    table = Table(box=None)
    for name in ("class", "precision", "recall", "F1", "photographs"):
        is_class = name == "class"
        table.add_column(
            name,
            justify="left" if is_class else "right",
            overflow="fold",
            min_width=None if is_class else max(len(name), 6),
        )
    for row in _class_rows(result, classes):
        shares = ["-" if row[name] is None else f"{row[name]:.4f}" for name in ("precision", "recall", "F1")]
        table.add_row(Text(row["class"]), *shares, str(row["photographs"]))
    console.print(table)
    console.print(f"val_acc {result.accuracy!r}" if split == "val" else f"test_acc {result.accuracy!r}")
    console.print(f"macro F1 {result.macro_f1:.4f}   loss {result.loss:.4f}")
    console.print(Text(f"confusion matrix: {files[0]} and {files[1].name}"))
