"""`plan`: which micro-batch and accumulation make which effective batch within a GPU's memory."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tune_cropshield.commands import arguments
from tune_cropshield.outcome import words
from tune_cropshield.terminal import say

if TYPE_CHECKING:
    from tune_cropshield.api.plan import PlanResult
    from tune_cropshield.memory.choose.pairs import Figures, Pair, Plan


HELP = "show which batch sizes fit a GPU's memory"
DESCRIPTION = (
    "Shows which micro-batches and accumulations fit a GPU memory budget, for each effective batch, and how fast each "
    "pair is."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments. A default of None means "as the file says"."""
    parser.add_argument("--model", default="efficientnet_b0", metavar="NAME", help="network (default: %(default)s)")
    parser.add_argument(
        "--image-size",
        type=arguments.whole_number,
        default=224,
        metavar="PX",
        help="side of the training images (default: %(default)s)",
    )
    parser.add_argument(
        "--vram",
        default="8GB",
        metavar="8GB|auto",
        help="GPU memory to plan for: an amount, rtx4060-laptop, rtx3050-laptop, or auto: what is free now "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp16", "bf16", "fp32"),
        default="fp16",
        help="number format of the training step (default: %(default)s)",
    )
    parser.add_argument(
        "--effective-batch", type=arguments.whole_number, metavar="N", help="show only this effective batch"
    )
    parser.add_argument(
        "--micro-batch",
        type=arguments.whole_number,
        metavar="N",
        help="show only this micro-batch, whether it fits or not",
    )
    parser.add_argument("--estimate", action="store_true", help="estimate only: do not use the GPU")
    parser.add_argument("--json", action="store_true", help="print one JSON object, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints the plan: measured where there is a GPU, estimated otherwise or with --estimate."""
    from tune_cropshield.api.plan import plan
    from tune_cropshield.search.views.live import LiveView
    from tune_cropshield.search.views.view import SearchView

    console = Console(soft_wrap=True, highlight=False, stderr=args.json)
    found = plan(
        model=args.model,
        image_size=args.image_size,
        vram=args.vram,
        precision=args.precision,
        effective_batch=args.effective_batch,
        micro_batch=args.micro_batch,
        estimate=args.estimate,
        progress=LiveView(console) if console.is_terminal else SearchView(),
    )
    if args.json:
        print(json.dumps(found.as_dict()))
    else:
        _print(found, "as --estimate asks" if args.estimate else "as there is no GPU to measure on", console)
    return 0


def _print(found: PlanResult, why_estimated: str, console: Console) -> None:
    """Prints the plan for people. why_estimated: the reason, where nothing was measured."""
    from tune_cropshield.config.reference import REFERENCE_CLASSES
    from tune_cropshield.config.units import parse_budget

    trial, plan, card = found.trial, found.plan, found.card
    if card is None:
        heading = f"An estimate, {why_estimated}: nothing was measured."
    else:
        import torch

        how = "with two micro-batches per update, whatever the accumulation"
        heading = f"Measured on {card.name}, driver {card.driver}, torch {torch.__version__}, {how}."
    say(
        console,
        f"{trial.model} at {trial.image_size} px, {trial.precision}, {trial.optimizer}, {REFERENCE_CLASSES} classes, "
        f"budget {found.vram}",
    )
    say(console, heading)
    say(
        console,
        f"{found.budget_mib:.0f} MiB usable: {plan.context_mib:.0f} for the CUDA driver, {plan.share_mib:.0f} for "
        'training. Columns "predicted" and "measured" show the largest amount of memory held at once.',
    )
    amount = parse_budget(found.vram)
    console.print(_table(plan, (amount.card_mib if amount is not None else found.budget_mib) / 1024))
    for note in plan.notes:
        say(console, f"note: {note}")
    if any((figures.reserved_mib or 0.0) > (plan.share_mib or 0.0) for figures in plan.figures.values()):
        say(console, "!: does not fit")
    say(
        console,
        'Column "formula" is the pair that the CropShield training guide computes. It counts the input image as 2 MB '
        "and leaves out the activations, which take most of the memory.",
    )


def _table(plan: Plan, card_gib: float) -> Table:
    """Returns the pairs as a table; the first of each effective batch is the one a search takes.

    card_gib: the GPU's memory, for the formula's advice.
    """
    from tune_cropshield.config.reference import guide_formula

    table = Table(show_edge=False, pad_edge=False)
    for column in ("effective", "micro x acc", "predicted", "measured", "images/s", "budget", "formula"):
        table.add_column(column, justify="right", no_wrap=True)
    for batch in sorted(plan.pairs):
        advised = guide_formula(batch, card_gib)
        formula = "1 / 0" if advised is None else f"{advised[0]} x {advised[1]}"
        if not plan.pairs[batch]:
            table.add_row(str(batch), "none fits", "", "", "", "", formula)
        for place, pair in enumerate(plan.pairs[batch]):
            first = place == 0
            cells = _cells(pair, plan.figures[pair], plan)
            table.add_row(str(batch) if first else "", *cells, formula if first else "")
    return table


def _cells(pair: Pair, figures: Figures, plan: Plan) -> list[str]:
    """Returns a pair's row, without its first and last column."""
    budget_mib = (plan.share_mib or 0.0) + plan.context_mib
    taken = (figures.reserved_mib + plan.context_mib) / budget_mib if figures.reserved_mib is not None else None
    return [
        f"{pair.micro_batch} x {pair.accumulation}",
        words.mib(figures.predicted_reserved_mib),
        words.mib(figures.measured_reserved_mib),
        words.number(figures.images_per_s),
        "–" if taken is None else f"{taken:.0%}" + ("" if taken <= 1 else " !"),
    ]
