"""`plan`: which micro-batch and accumulation make which effective batch within a GPU's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from tune_cropshield.api.arguments import Progress, check_choice, view_of
from tune_cropshield.config.faults import command_line, validated
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.reference import REFERENCE_CLASSES
from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.config.units import parse_budget
from tune_cropshield.errors import EstimateUnavailable, UserError
from tune_cropshield.memory.choose.pairs import EFFECTIVE_BATCHES

if TYPE_CHECKING:  # PyTorch takes seconds to import: not before the arguments are known to be right
    from tune_cropshield.device import Card
    from tune_cropshield.memory.choose.budget import Budget
    from tune_cropshield.memory.choose.pairs import Plan
    from tune_cropshield.search.views.view import SearchView

PRECISIONS = get_args(Precision)


@dataclass(frozen=True)
class PlanResult:
    """The pairs of micro-batch and accumulation that fit a memory budget.

    trial: the settings that the plan is for. vram: the budget as it was given; budget_mib: what it is for us, in MiB.
    card: the GPU that was measured on, None for an estimate.
    """

    trial: TrialConfig
    vram: str
    budget_mib: float
    card: Card | None
    plan: Plan

    @property
    def pairs(self) -> list[dict[str, Any]]:
        """A row per pair; the first of each effective batch is the one a search takes.

        A row holds effective_batch, micro_batch, accumulation, peak_allocated_mib, peak_reserved_mib and images_per_s,
        None where it was not measured. What is measured is measured with two micro-batches an update, whatever the
        accumulation.
        """
        return [
            {
                "effective_batch": pair.effective_batch,
                "micro_batch": pair.micro_batch,
                "accumulation": pair.accumulation,
                "peak_allocated_mib": self.plan.figures[pair].allocated_mib,
                "peak_reserved_mib": self.plan.figures[pair].reserved_mib,
                "images_per_s": self.plan.figures[pair].images_per_s,
            }
            for batch in sorted(self.plan.pairs)
            for pair in self.plan.pairs[batch]
        ]

    def as_dict(self) -> dict[str, Any]:
        """Returns what `plan --json` prints."""
        return {
            "model": self.trial.model,
            "image_size": self.trial.image_size,
            "precision": self.trial.precision,
            "classes": REFERENCE_CLASSES,
            "optimizer": self.trial.optimizer,
            "budget_mib": self.budget_mib,
            "source": self.plan.source,
            "fixed_mib": self.plan.fixed_mib,
            "per_image_mib": self.plan.per_image_mib,
            "pairs": self.pairs,
        }


def plan(
    *,
    model: str = "efficientnet_b0",
    image_size: int = 224,
    vram: str = "8GB",
    precision: Precision = "fp16",
    effective_batch: int | None = None,
    micro_batch: int | None = None,
    estimate: bool = False,
    progress: Progress = True,
) -> PlanResult:
    """Returns which batches fit a GPU's memory: measured where there is a GPU, estimated otherwise.

    Args:
        model: tiny_cnn, cropshield_cnn, a classifier of torchvision, timm:NAME, or your own as file.py:name.
        image_size: The side of the training images, in px.
        vram: The budget: an amount like "8GB", rtx4060-laptop, rtx3050-laptop, or auto for what is free.
        precision: Of the forward and backward pass.
        effective_batch: Only this one.
        micro_batch: Only this one, whether it fits or not.
        estimate: Do not touch a GPU.
        progress: Shown while it is measured; see `tune_cropshield.search`.

    Raises:
        ConfigError: With every fault of the arguments.
        UserError: The budget is too small, or the network can only be planned for with a GPU.
    """
    check_choice("--precision", precision, PRECISIONS)
    trial = _trial(model, image_size, precision, effective_batch, micro_batch)
    if not isinstance(vram, str):
        raise UserError(f"--vram: must be a string, but got {vram!r}")
    parse_budget(vram)  # raises, before anything heavy is imported
    from tune_cropshield.device import find_card
    from tune_cropshield.memory.choose.budget import resolve_budget
    from tune_cropshield.training.model_checks import check_micro_batch, check_sizes

    check_sizes(trial.model, [trial.image_size])
    check_micro_batch(trial)
    # An estimate for a given amount is one for any GPU, not for this one's; with `estimate` it is left alone.
    card = find_card() if not estimate else None
    budget = resolve_budget(vram, card)
    batches = _effective_batches(effective_batch, micro_batch)
    if card is None:
        found = _estimated_plan(trial, batches, budget, micro_batch)
    else:
        found = _measured_plan(trial, batches, budget, card, micro_batch, view_of(progress))
    return PlanResult(trial, vram, budget.total_mib, card, found)


def _trial(
    model: str, image_size: int, precision: str, effective_batch: int | None, micro_batch: int | None
) -> TrialConfig:
    """Returns the settings that the plan is for; raises ConfigError with every fault of the arguments."""
    given = {
        "model": model,
        "image_size": image_size,
        "precision": precision,
        "effective_batch": effective_batch if effective_batch is not None else micro_batch,
        "micro_batch": micro_batch,
    }
    values = {name: value for name, value in given.items() if value is not None}
    return validated(TrialConfig, values, command_line("trial", values))


def _effective_batches(effective_batch: int | None, micro_batch: int | None) -> list[int]:
    if effective_batch is not None:
        return [effective_batch]
    if micro_batch is not None:
        return sorted({micro_batch, *(batch for batch in EFFECTIVE_BATCHES if batch % micro_batch == 0)})
    return list(EFFECTIVE_BATCHES)


def _estimated_plan(trial: TrialConfig, batches: list[int], budget: Budget, micro_batch: int | None) -> Plan:
    """Returns the plan without a GPU."""
    from tune_cropshield.memory.choose.for_gpu import allowed_micro_batches, estimate_for
    from tune_cropshield.memory.choose.plans import plan_from_estimate

    try:
        estimate = estimate_for(trial, REFERENCE_CLASSES)
    except EstimateUnavailable as error:
        raise UserError(f"{error}; on a machine with a GPU, plan without --estimate measures it") from None
    subject = f"{trial.model} at {trial.image_size} px"
    allowed = allowed_micro_batches(trial)
    return plan_from_estimate(
        estimate, batches, budget.share_mib(), budget.context_mib, allowed, subject, only=micro_batch
    )


def _measured_plan(
    trial: TrialConfig, batches: list[int], budget: Budget, card: Card, micro_batch: int | None, view: SearchView
) -> Plan:
    from tune_cropshield.memory.choose.for_gpu import plan_for_gpu

    with view.steps("measuring which batches fit") as measuring:
        return plan_for_gpu(
            trial, REFERENCE_CLASSES, batches, budget, card, cache_dir(), only=micro_batch, measuring=measuring
        )
