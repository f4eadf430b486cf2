"""`plan`: which micro-batch and accumulation make which effective batch within a GPU's memory."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tune_cropshield.config.faults import command_line, validated
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.reference import REFERENCE_CLASSES, guide_formula
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.config.units import parse_budget
from tune_cropshield.errors import EstimateUnavailable, UserError
from tune_cropshield.memory.choose.pairs import EFFECTIVE_BATCHES

if TYPE_CHECKING:  # PyTorch takes seconds to import: not before the command line is known to be right
    from tune_cropshield.device import Card
    from tune_cropshield.memory.choose.budget import Budget
    from tune_cropshield.memory.choose.pairs import Plan


def run(args: argparse.Namespace) -> int:
    """Prints the plan: measured where there is a GPU, estimated otherwise or with --estimate."""
    trial = _trial(args)
    amount = parse_budget(args.vram)  # before anything heavy is imported
    import torch

    from tune_cropshield.device import find_card
    from tune_cropshield.memory.choose.budget import resolve_budget

    # An estimate for a given amount is one for any card, not for this one's; --estimate leaves the GPU alone
    # altogether.
    card = find_card() if not args.estimate and torch.cuda.is_available() else None
    budget = resolve_budget(args.vram, card)
    batches = _effective_batches(args)
    console = Console(soft_wrap=True, highlight=False, stderr=args.json)
    if card is None:
        plan = _estimated_plan(trial, batches, budget, args.micro_batch)
        why = "as asked" if args.estimate else "there is no GPU here to measure on"
        heading = f"An estimate, {why}: nothing was measured."
    else:
        plan = _measured_plan(trial, batches, budget, card, args.micro_batch, console)
        heading = f"Measured on {card.name}, driver {card.driver}, torch {torch.__version__}."
    if args.json:
        print(json.dumps(_as_json(trial, budget.total_mib, plan)))
        return 0
    console.print(
        f"{trial.model} at {trial.image_size} px, {trial.precision}, {trial.optimizer}, {REFERENCE_CLASSES} classes, "
        f"budget {args.vram}"
    )
    console.print(heading)
    console.print(
        f"{budget.total_mib:.0f} MiB for us: {plan.context_mib:.0f} for the driver's context, {plan.share_mib:.0f} "
        "for tensors. "
        f"What must fit is the reserved peak."
    )
    console.print(_table(plan, (amount.card_mib if amount is not None else budget.total_mib) / 1024))
    for note in plan.notes:
        console.print(f"note: {note}")
    if any(
        figures.reserved_mib is not None and figures.reserved_mib > (plan.share_mib or 0.0)
        for figures in plan.figures.values()
    ):
        console.print("!: too much")
    console.print("The guide's formula counts the input image (as 2 MB) and forgets the activations.")
    return 0


def _trial(args: argparse.Namespace) -> TrialConfig:
    """Returns the settings that the plan is for; raises ConfigError with every fault of the command line."""
    given = {
        "model": args.model,
        "image_size": args.image_size,
        "precision": args.precision,
        "effective_batch": args.effective_batch if args.effective_batch is not None else args.micro_batch,
        "micro_batch": args.micro_batch,
    }
    values = {name: value for name, value in given.items() if value is not None}
    return validated(TrialConfig, values, command_line("trial", values))


def _effective_batches(args: argparse.Namespace) -> list[int]:
    if args.effective_batch is not None:
        return [args.effective_batch]
    if args.micro_batch is not None:
        return sorted({args.micro_batch, *(batch for batch in EFFECTIVE_BATCHES if batch % args.micro_batch == 0)})
    return list(EFFECTIVE_BATCHES)


def _estimated_plan(trial: TrialConfig, batches: list[int], budget: Budget, micro_batch: int | None) -> Plan:
    """Returns the plan without a GPU."""
    from tune_cropshield.memory.choose.for_gpu import estimate_for
    from tune_cropshield.memory.choose.plans import plan_from_estimate

    try:
        estimate = estimate_for(trial, REFERENCE_CLASSES)
    except EstimateUnavailable as error:
        raise UserError(f"{error}; on a machine with a GPU, plan without --estimate measures it") from None
    subject = f"{trial.model} at {trial.image_size} px"
    return plan_from_estimate(
        estimate, batches, budget.share_mib(), budget.context_mib, subject=subject, only=micro_batch
    )


def _measured_plan(
    trial: TrialConfig, batches: list[int], budget: Budget, card: Card, micro_batch: int | None, console: Console
) -> Plan:
    from tune_cropshield.memory.choose.for_gpu import plan_for_gpu

    with console.status("measuring") as status:

        def show(done: int, total: int) -> None:
            status.update(f"measuring: {done} of {total}")

        return plan_for_gpu(
            trial, REFERENCE_CLASSES, batches, budget, card, cache_dir(), only=micro_batch, measuring=show
        )


def _as_json(trial: TrialConfig, budget_mib: float, plan: Plan) -> dict[str, Any]:
    """Returns the object that --json prints."""
    return {
        "model": trial.model,
        "image_size": trial.image_size,
        "precision": trial.precision,
        "classes": REFERENCE_CLASSES,
        "optimizer": trial.optimizer,
        "budget_mib": budget_mib,
        "source": plan.source,
        "fixed_mib": plan.fixed_mib,
        "per_image_mib": plan.per_image_mib,
        "pairs": [
            {
                "effective_batch": pair.effective_batch,
                "micro_batch": pair.micro_batch,
                "accumulation": pair.accumulation,
                "peak_allocated_mib": plan.figures[pair].allocated_mib,
                "peak_reserved_mib": plan.figures[pair].reserved_mib,
                "images_per_s": plan.figures[pair].images_per_s,
            }
            for batch in sorted(plan.pairs)
            for pair in plan.pairs[batch]
        ],
    }


def _table(plan: Plan, card_gib: float) -> Table:
    """Returns the pairs as a table; the first of each effective batch is the one a search takes."""
    table = Table(show_edge=False, pad_edge=False)
    for column in ("effective", "micro x acc", "predicted", "measured", "images/s", "budget", "guide"):
        table.add_column(column, justify="right", no_wrap=True)
    for batch in sorted(plan.pairs):
        guide = guide_formula(batch, card_gib)
        said = "1 / 0" if guide is None else f"{guide[0]} x {guide[1]}"
        if not plan.pairs[batch]:
            table.add_row(str(batch), "none fits", "", "", "", "", said)
        for place, pair in enumerate(plan.pairs[batch]):
            figures = plan.figures[pair]
            budget_mib = (plan.share_mib or 0.0) + plan.context_mib
            taken = (figures.reserved_mib + plan.context_mib) / budget_mib if figures.reserved_mib is not None else None
            table.add_row(
                str(batch) if place == 0 else "",
                f"{pair.micro_batch} x {pair.accumulation}",
                _mib(figures.predicted_reserved_mib),
                _mib(figures.measured_reserved_mib),
                "-" if figures.images_per_s is None else f"{figures.images_per_s:.0f}",
                "-" if taken is None else f"{taken:.0%}" + ("" if taken <= 1 else " !"),
                said if place == 0 else "",
            )
    return table


def _mib(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} MiB"
