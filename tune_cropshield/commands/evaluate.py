"""`evaluate`: a trained network on the validation or the test split."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tune_cropshield.commands.paths import cache_dir
from tune_cropshield.errors import UserError
from tune_cropshield.records import CONFIG
from tune_cropshield.search.resources import find_device


def run(args: argparse.Namespace) -> int:
    """Prints accuracy, macro F1 and a table of the classes."""
    from tune_cropshield.outcome.trained import load_trained, read_run

    config, classes, weights = read_run(args.run_dir)
    if args.data is not None:
        config = config.model_copy(update={"data": config.data.model_copy(update={"dir": str(args.data.absolute())})})
    if not config.data.dir:
        raise UserError(f"{args.run_dir / CONFIG} names no photographs: give --data DIR")
    import torch

    from tune_cropshield.data.dataset import DeviceData, open_data
    from tune_cropshield.training.evaluate import Evaluator
    from tune_cropshield.training.precision import DTYPES, resolve_precision
    from tune_cropshield.trial import validation_batches

    trial = config.trial
    device = torch.device(find_device("auto"))
    if trial.threads is not None:
        torch.set_num_threads(trial.threads)
    data = open_data(config.data, {trial.final_size}, cache_dir())
    if list(data.classes) != classes:
        raise UserError(
            f"the classes of {config.data.dir} are not those it was trained on: {', '.join(sorted(set(data.classes) ^ set(classes)))} differ"
        )
    precision = resolve_precision(trial.precision, device)
    batches = validation_batches(trial, DeviceData(data, device), args.split, DTYPES[precision])
    result = Evaluator(load_trained(trial, len(classes), weights, device), len(classes), precision, device).evaluate(batches)
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{args.split}: {int(result.confusion_KK.sum())} photographs")
    table = Table(box=None)
    for name in ("class", "precision", "recall", "F1", "photographs"):
        is_class = name == "class"
        table.add_column(name, justify="left" if is_class else "right", no_wrap=True, min_width=None if is_class else max(len(name), 6))
    right, met, predicted = result.confusion_KK.diagonal(), result.confusion_KK.sum(1), result.confusion_KK.sum(0)
    for index, name in enumerate(classes):
        shares = [_share(right[index], predicted[index]), _share(right[index], met[index])]
        table.add_row(Text(name), *shares, f"{float(result.f1_K[index]):.4f}", str(int(met[index])))
    console.print(table)
    console.print(f"val_acc {result.accuracy!r}" if args.split == "val" else f"test_acc {result.accuracy!r}")
    console.print(f"macro F1 {result.macro_f1:.4f}   loss {result.loss:.4f}")
    return 0


def _share(part: object, whole: object) -> str:
    return f"{float(part) / float(whole):.4f}" if whole else "-"  # type: ignore[arg-type]
