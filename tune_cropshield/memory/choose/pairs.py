"""Pairs of micro-batch and accumulation, and the plan that says which of them a trial may take.

Nothing here needs PyTorch: on a CPU a plan is made without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tune_cropshield.config.branches import where
from tune_cropshield.errors import ConfigError

EFFECTIVE_BATCHES = (16, 32, 64, 128, 256)  # planned for where none are named
# Without a GPU there is no video memory to fit. A micro-batch of this many pictures fills the vector units of a core;
# more only misses its caches.
CPU_MICRO_BATCH = 64
SMALLEST_FOR_BATCH_NORM = 16  # below it a batch norm's statistics are too noisy (see training.models.correct_momentum)
# Of its share a trial is planned to take at most this: fragmentation differs a little from run to run.
PLANNED_SHARE = 0.97


@dataclass(frozen=True)
class Pair:
    """One way to make an effective batch: `accumulation` micro-batches of `micro_batch` images."""

    micro_batch: int
    accumulation: int

    @property
    def effective_batch(self) -> int:
        return self.micro_batch * self.accumulation

    def __str__(self) -> str:
        return f"{self.micro_batch}x{self.accumulation}"


def parse_pair(text: str) -> Pair:
    """Returns the pair that "16x2" stands for; raises ConfigError for anything else."""
    micro_batch, _, accumulation = text.partition("x")
    if not (micro_batch.isdecimal() and accumulation.isdecimal() and int(micro_batch) and int(accumulation)):
        raise ConfigError([f"{text!r} is not a pair: write micro-batch x accumulation, like 16x2"])
    return Pair(int(micro_batch), int(accumulation))


@dataclass(frozen=True)
class Allowed:
    """Which micro-batches a trial may have, whatever the memory.

    even: only even ones, as where neighbours are mixed. smallest: 2 where a network cannot be trained on a single image
    (see training.model_checks), 1 elsewhere.
    """

    even: bool = False
    smallest: int = 1

    def of(self, effective_batch: int) -> list[int]:
        """Returns the micro-batches that divide `effective_batch`, the largest first."""
        sizes = range(effective_batch, self.smallest - 1, -1)
        return [size for size in sizes if effective_batch % size == 0 and not (self.even and size % 2)]


ANY = Allowed()


def pairs_of(effective_batch: int, fits: Callable[[int], bool], allowed: Allowed = ANY) -> tuple[Pair, ...]:
    """Returns the pairs that make `effective_batch` with a micro-batch that fits, the largest micro-batch first.

    Micro-batches below 16 are left out where a larger one fits; none at all when not even the smallest fits.
    """
    fitting = [size for size in allowed.of(effective_batch) if fits(size)]
    enough = [size for size in fitting if size >= SMALLEST_FOR_BATCH_NORM] or fitting[:1]
    return tuple(Pair(size, effective_batch // size) for size in enough)


@dataclass(frozen=True)
class Figures:
    """What is known of a pair; None where it was not predicted or not measured. Memory is the allocator's, in MiB."""

    predicted_allocated_mib: float | None = None
    predicted_reserved_mib: float | None = None
    measured_allocated_mib: float | None = None
    measured_reserved_mib: float | None = None
    images_per_s: float | None = None

    @property
    def allocated_mib(self) -> float | None:
        """The measured peak, or else the predicted one."""
        return self.measured_allocated_mib if self.measured_allocated_mib is not None else self.predicted_allocated_mib

    @property
    def reserved_mib(self) -> float | None:
        """The measured peak, or else the predicted one: what must fit."""
        return self.measured_reserved_mib if self.measured_reserved_mib is not None else self.predicted_reserved_mib


@dataclass(frozen=True)
class Plan:
    """The pairs that a search may propose, by effective batch.

    The first of each is the one to take when only one is wanted.

    share_mib: what the allocator of one trial may reserve, None on a CPU. fixed_mib, per_image_mib: of the line that
    large batches follow. families: where trials have several networks or image sizes, the values that tell them apart,
    each with its own plan.
    """

    pairs: dict[int, tuple[Pair, ...]]
    source: Literal["cpu", "estimate", "probe"] = "cpu"
    share_mib: float | None = None
    context_mib: float = 0.0
    fixed_mib: float | None = None
    per_image_mib: float | None = None
    figures: dict[Pair, Figures] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    families: tuple[tuple[Mapping[str, Any], Plan], ...] = ()

    def of(self, parameters: Mapping[str, Any]) -> Plan:
        """Returns the plan of trials with these parameters: the first of the families' that agrees with them."""
        return next((plan for family, plan in self.families if _agree(family, parameters)), self)

    def best(self, effective_batch: int) -> Pair:
        """Returns the pair for `effective_batch`; raises ConfigError when none fits."""
        if not self.pairs.get(effective_batch):
            fitting = [str(batch) for batch in self.effective_batches]
            known = ", ".join(fitting) or "none"
            raise ConfigError(
                [f"no pair that fits makes an effective batch of {effective_batch}; those that do: {known}"]
            )
        return self.pairs[effective_batch][0]

    @property
    def effective_batches(self) -> tuple[int, ...]:
        """The effective batches that some pair makes, in ascending order."""
        return tuple(sorted(batch for batch, pairs in self.pairs.items() if pairs))

    def spare_mib(self, every_pair: bool) -> float:
        """Returns what all trials leave free of their share, to keep pictures in.

        It is 0 on a CPU, or where a pair's need is not known.

        every_pair: trials take any of the pairs, and not only the first of each effective batch.
        """
        if self.families:
            return min(plan.spare_mib(every_pair) for _, plan in self.families)
        taken = [pairs if every_pair else pairs[:1] for pairs in self.pairs.values()]
        needs = [self.figures[pair].reserved_mib if pair in self.figures else None for pairs in taken for pair in pairs]
        known = [need for need in needs if need is not None]
        if self.share_mib is None or not known or len(known) < len(needs):
            return 0.0
        return max(PLANNED_SHARE * self.share_mib - max(known), 0.0)


def _agree(family: Mapping[str, Any], parameters: Mapping[str, Any]) -> bool:
    return all(parameters.get(name, value) == value for name, value in family.items())


def plan_of_families(plans: Sequence[tuple[Mapping[str, Any], Plan]]) -> Plan:
    """Returns the plan of a search whose trials have several networks or image sizes, given that of each family.

    Its pairs are those of any family, and its share of memory is what every trial may reserve.
    """
    every = [plan for _, plan in plans]
    if len(every) == 1 and not plans[0][0]:
        return every[0]
    batches = sorted({batch for plan in every for batch in plan.pairs})
    shares = [plan.share_mib for plan in every if plan.share_mib is not None]
    return Plan(
        {batch: tuple(dict.fromkeys(p for plan in every for p in plan.pairs.get(batch, ()))) for batch in batches},
        "probe" if any(plan.source == "probe" for plan in every) else every[0].source,
        min(shares, default=None),
        max(plan.context_mib for plan in every),
        notes=tuple(dict.fromkeys(_note(note, family, plans) for family, plan in plans for note in plan.notes)),
        families=tuple(plans),
    )


def _note(note: str, family: Mapping[str, Any], plans: Sequence[tuple[Mapping[str, Any], Plan]]) -> str:
    """Returns a note on the plan of one family, with the family's values where it is not true of all."""
    return note if all(note in plan.notes for _, plan in plans) else f"{where(family)}: {note}"


def plan_for_cpu(effective_batches: Iterable[int], allowed: Allowed = ANY) -> Plan:
    """Returns the plan without a GPU: whole batches up to 64, accumulated above, but for those that are not divided by
    a micro-batch of 16 to 64: these are whole too.

    allowed: the micro-batches that trials may have.
    """
    batches = sorted(set(effective_batches))
    pairs = {batch: pairs_of(batch, lambda size: size <= CPU_MICRO_BATCH, allowed) for batch in batches}
    for batch, made in pairs.items():
        if batch > CPU_MICRO_BATCH and not (made and made[0].micro_batch >= SMALLEST_FOR_BATCH_NORM):
            pairs[batch] = pairs_of(batch, lambda size: True, allowed)
    unmade = ", ".join(str(batch) for batch, made in pairs.items() if not made)
    note = f"no micro-batch that the network can be trained with makes an effective batch of {unmade}"
    return Plan(pairs, notes=(note,) if unmade else ())
