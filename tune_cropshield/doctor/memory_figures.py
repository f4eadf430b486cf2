"""Memory: the rules' configurations, formula and tables, measured on a GPU or estimated without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from tune_cropshield.config.reference import REFERENCE_CLASSES, guide_formula
from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.device import Card
from tune_cropshield.doctor.claims import REFERENCE_IMAGE_SIZE, Claim, Figure, Figures, Key, Source, reference_pair
from tune_cropshield.doctor.plain_step import PlainStep, StepSettings
from tune_cropshield.errors import DeviceError, EstimateUnavailable, RunFailure
from tune_cropshield.memory.choose.budget import resolve_budget
from tune_cropshield.memory.choose.for_gpu import estimate_for, plan_for_gpu
from tune_cropshield.memory.choose.pairs import EFFECTIVE_BATCHES, Plan
from tune_cropshield.memory.choose.plans import plan_from_estimate
from tune_cropshield.memory.guard import cap_allocator
from tune_cropshield.memory.measure.step_driver import DoesNotFit, measure_step
from tune_cropshield.memory.predict.estimate import MemoryEstimate, estimate_memory

WINDOWS_TO_SETTLE = 2  # the optimizer has its state after one, the allocator its segments after two


@dataclass(frozen=True)
class Peak:
    """The most that a training step holds, in MiB.

    allocated_mib: of tensors. reserved_mib: of the allocator's segments, which is what must fit.
    """

    allocated_mib: float
    reserved_mib: float


class Memory(Protocol):
    """Answers what a step takes, and what is planned for a GPU of a given budget.

    None stands for what is not known; `why` then says why.
    """

    source: Source
    why: str

    def peak(self, model: str, precision: Precision, micro_batch: int) -> Peak | None:
        """Returns the peak of a plain script's step (no channels_last), accumulating."""

    def plan(self, model: str, card: str) -> Plan | None:
        """Returns the plan for a laptop's budget, as a search would make it."""


class EstimatedMemory:
    """Memory without a GPU: from the networks' operations."""

    source: Source = "estimate"

    def __init__(self) -> None:
        self.why = ""
        self._estimates: dict[tuple[str, str], MemoryEstimate | None] = {}

    def peak(self, model: str, precision: Precision, micro_batch: int) -> Peak | None:
        estimate = self._estimate(
            (model, precision),
            lambda: estimate_memory(model, REFERENCE_CLASSES, REFERENCE_IMAGE_SIZE, precision, channels_last=False),
        )
        return (
            None
            if estimate is None
            else Peak(estimate.peak_allocated_mib(micro_batch, 2), estimate.peak_reserved_mib(micro_batch, 2))
        )

    def plan(self, model: str, card: str) -> Plan | None:
        estimate = self._estimate((model, "plan"), lambda: estimate_for(_trial(model), REFERENCE_CLASSES))
        if estimate is None:
            return None
        budget = resolve_budget(card, None)
        return plan_from_estimate(estimate, EFFECTIVE_BATCHES, budget.share_mib(), budget.context_mib, subject=model)

    def _estimate(self, key: tuple[str, str], make: Callable[[], MemoryEstimate]) -> MemoryEstimate | None:
        if key not in self._estimates:
            try:
                self._estimates[key] = make()
            except EstimateUnavailable as error:
                self.why = str(error)
                self._estimates[key] = None
        return self._estimates[key]


class MeasuredMemory:
    """Memory on a GPU: a plain step in this process, under a cap so that no driver spills; plans from the probe."""

    source: Source = "measured"

    def __init__(self, device: torch.device, card: Card, cache_dir: Path) -> None:
        self.why = "it does not fit this GPU"
        self._device, self._card, self._cache_dir = device, card, cache_dir
        self._peaks: dict[tuple[str, str, int], Peak | None] = {}

    def peak(self, model: str, precision: Precision, micro_batch: int) -> Peak | None:
        key = (model, precision, micro_batch)
        if key not in self._peaks:
            cap_allocator(resolve_budget("auto", self._card).share_mib(), self._device)
            try:
                settings = StepSettings(
                    model, REFERENCE_IMAGE_SIZE, precision, channels_last=False, micro_batch=micro_batch, accumulation=2
                )
                self._peaks[key] = _measured_peak(settings, self._device)
            finally:
                cap_allocator(None, self._device)
        return self._peaks[key]

    def plan(self, model: str, card: str) -> Plan | None:
        try:
            return plan_for_gpu(
                _trial(model),
                REFERENCE_CLASSES,
                EFFECTIVE_BATCHES,
                resolve_budget(card, self._card),
                self._card,
                self._cache_dir,
            )
        except (DeviceError, RunFailure) as error:
            # A smaller GPU than the rules are about, or one that is full: say so and go on.
            self.why = str(error)
            return None


def _measured_peak(settings: StepSettings, device: torch.device) -> Peak | None:
    """Returns what the step takes on a GPU, None where it does not fit."""
    found = measure_step(lambda: PlainStep(settings, device), device, warm_up=WINDOWS_TO_SETTLE, timed=1)
    return None if isinstance(found, DoesNotFit) else Peak(found.peak_allocated_mib, found.peak_reserved_mib)


def _trial(model: str) -> TrialConfig:
    """Returns the settings that a search would plan with: the rules' networks and optimizer, clipping on."""
    return TrialConfig(model=model, image_size=REFERENCE_IMAGE_SIZE, precision="fp16", max_norm=1.0)


def memory_figures(
    models: tuple[str, ...], claims: list[tuple[Claim, str]], memory: Memory, tell: Callable[[str], object]
) -> Figures:
    """Returns the figures about memory that `claims` (each with its model) ask for.

    tell: called with what is done next.
    """
    figures: Figures = {}
    plans: dict[tuple[str, str], Plan | None] = {}
    for model in models:
        tell(f"the memory of {model}")
        figures |= _general(model, memory)
    for claim, model in claims:
        if claim.quantity == "formula":
            figures[Key(claim.quantity, model, claim.pair, claim.card)] = _formula()
        elif claim.card is not None and claim.quantity in ("planned_batch", "largest_batch", "vram"):
            if (model, claim.card) not in plans:
                tell(f"the plan of {model} for a budget of {claim.card}")
                plans[model, claim.card] = memory.plan(model, claim.card)
            figures[Key(claim.quantity, model, claim.pair, claim.card)] = _of_a_card(
                claim, model, plans[model, claim.card], memory
            )
    for (model, _), plan in plans.items():
        if plan is not None:
            note = "the CUDA driver and loaded libraries" + ("" if memory.source == "measured" else ": assumed")
            figures[Key("context", model)] = Figure(plan.context_mib / 1024, memory.source, note)
            figures[Key("per_image", model)] = _mib(
                plan.per_image_mib, 1.0, memory, "activations of an image, fp16 channels_last"
            )
            figures[Key("fixed", model)] = _mib(
                plan.fixed_mib, 1024.0, memory, "weights, gradients, AdamW's state and workspaces"
            )
    return figures


def _general(model: str, memory: Memory) -> Figures:
    """Returns what mixed precision and accumulation save."""
    micro, _ = reference_pair(model)
    half, full = memory.peak(model, "fp16", micro), memory.peak(model, "fp32", micro)
    twice = memory.peak(model, "fp16", 2 * micro)
    missing = Figure(None, memory.source, memory.why)
    saved, larger, spread = missing, missing, missing
    if half is not None and full is not None:
        note = (
            f"{half.allocated_mib:.0f} MiB of tensors in fp16, {full.allocated_mib:.0f} in fp32, {micro} images at once"
        )
        saved = Figure(100 * (1 - half.allocated_mib / full.allocated_mib), memory.source, note)
    if half is not None and full is not None and twice is not None:
        per_image = (twice.allocated_mib - half.allocated_mib) / micro
        batch = (full.allocated_mib - half.allocated_mib) / per_image + micro
        larger = Figure(batch / micro, memory.source, f"{batch:.0f} images in fp16 take what {micro} take in fp32")
    small, large = memory.peak(model, "fp16", 16), memory.peak(model, "fp16", 32)
    if small is not None and large is not None:
        note = f"16 x 2 holds {small.allocated_mib:.0f} MiB, 32 x 1 {large.allocated_mib:.0f} (allocated, fp16)"
        spread = Figure(100 * (1 - small.allocated_mib / large.allocated_mib), memory.source, note)
    return {Key("amp_memory", model): saved, Key("amp_batch", model): larger, Key("accumulation_memory", model): spread}


def _formula() -> Figure:
    """Returns the batch that the published formula really gives for its own example."""
    answer = guide_formula(64, 8)
    assert answer is not None
    return Figure(float(answer[0]), "computed", f"it returns {answer[0]} x {answer[1]}")


def _of_a_card(claim: Claim, model: str, plan: Plan | None, memory: Memory) -> Figure:
    """Returns the figure of a claim about one of the rules' laptops."""
    if plan is None:
        return Figure(None, memory.source, memory.why)
    if claim.quantity == "largest_batch":
        largest = max((pair.micro_batch for pairs in plan.pairs.values() for pair in pairs), default=0)
        return Figure(float(largest), memory.source, f"of {', '.join(map(str, EFFECTIVE_BATCHES))}")
    assert claim.pair is not None
    if claim.quantity == "planned_batch":
        pairs = plan.pairs.get(claim.pair[0] * claim.pair[1], ())
        if not pairs:
            return Figure(None, memory.source, "no pair that fits makes this effective batch")
        pair, largest = pairs[0], max(pair.micro_batch for pair in pairs)
        note = f"the plan takes {pair}" + (
            f" as the fastest; {largest} at once would fit" if largest != pair.micro_batch else ""
        )
        return Figure(float(largest), memory.source, note)
    peak = memory.peak(model, "fp16", claim.pair[0])
    if peak is None:
        return Figure(None, memory.source, memory.why)
    note = f"{peak.reserved_mib:.0f} MiB reserved, {plan.context_mib:.0f} for the CUDA driver"
    return Figure((peak.reserved_mib + plan.context_mib) / 1024, memory.source, note)


def _mib(value: float | None, per_unit: float, memory: Memory, note: str) -> Figure:
    return Figure(None if value is None else value / per_unit, memory.source, note)
