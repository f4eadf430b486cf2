"""Which micro-batch and accumulation make an effective batch within the memory, and which of them is the fastest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tune_cropshield.errors import ConfigError, DeviceError

if TYPE_CHECKING:  # both bring PyTorch, which a plan for a CPU does without
    from tune_cropshield.memory.measure.points import Points
    from tune_cropshield.memory.predict.estimate import MemoryEstimate

# Without a GPU there is no video memory to fit. A micro-batch of this many pictures fills the vector units of a core;
# more only misses its caches.
CPU_MICRO_BATCH = 64
SMALLEST_FOR_BATCH_NORM = 16  # below it a batch norm's statistics are too noisy (see training.batchnorm)
# Of its share a trial is planned to take at most this: fragmentation differs a little from run to run.
PLANNED_SHARE = 0.97
# Smaller micro-batches that are this close to the fastest are as good: what they leave free is worth more.
AS_FAST = 0.97


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
        raise ConfigError([f"{text!r} is no pair: write micro-batch x accumulation, like 16x2"])
    return Pair(int(micro_batch), int(accumulation))


def micro_batches_of(effective_batch: int, even: bool = False) -> list[int]:
    """Returns the micro-batches that divide `effective_batch`, the largest first; only even ones where neighbours are
    mixed.
    """
    return [size for size in range(effective_batch, 0, -1) if effective_batch % size == 0 and not (even and size % 2)]


def pairs_of(effective_batch: int, fits: Callable[[int], bool], even: bool = False) -> tuple[Pair, ...]:
    """Returns the pairs that make `effective_batch` with a micro-batch that fits, the largest micro-batch first.

    Micro-batches below 16 are left out where a larger one fits; none at all when not even the smallest fits.
    """
    fitting = [size for size in micro_batches_of(effective_batch, even) if fits(size)]
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
    """The pairs that a search may propose, by effective batch; the first of each is the one to take when only one is
    wanted.

    share_mib: what the allocator of one trial may reserve, None on a CPU. fixed_mib, per_image_mib: of the line that
    large batches follow.
    """

    pairs: dict[int, tuple[Pair, ...]]
    source: Literal["cpu", "estimate", "probe"] = "cpu"
    share_mib: float | None = None
    context_mib: float = 0.0
    fixed_mib: float | None = None
    per_image_mib: float | None = None
    figures: dict[Pair, Figures] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def best(self, effective_batch: int) -> Pair:
        """Returns the pair for `effective_batch`; raises ConfigError when none fits."""
        if not self.pairs.get(effective_batch):
            fitting = [str(batch) for batch in self.effective_batches]
            raise ConfigError(
                [
                    (
                        f"no pair that fits makes an effective batch of {effective_batch}; those that do: "
                        f"{', '.join(fitting) or 'none'}"
                    )
                ]
            )
        return self.pairs[effective_batch][0]

    @property
    def effective_batches(self) -> tuple[int, ...]:
        """The effective batches that some pair makes, in ascending order."""
        return tuple(sorted(batch for batch, pairs in self.pairs.items() if pairs))

    def spare_mib(self, every_pair: bool) -> float:
        """Returns what all trials leave free of their share, to keep pictures in; 0 on a CPU, or where a pair's need is
        not known.

        every_pair: trials take any of the pairs, and not only the first of each effective batch.
        """
        taken = [pairs if every_pair else pairs[:1] for pairs in self.pairs.values()]
        needs = [self.figures[pair].reserved_mib if pair in self.figures else None for pairs in taken for pair in pairs]
        known = [need for need in needs if need is not None]
        if self.share_mib is None or not known or len(known) < len(needs):
            return 0.0
        return max(PLANNED_SHARE * self.share_mib - max(known), 0.0)


def plan_for_cpu(effective_batches: Iterable[int], even: bool = False) -> Plan:
    """Returns the plan without a GPU: whole batches up to 64, accumulated above. even: micro-batches must be
    (mixing).
    """
    return Plan(
        {batch: pairs_of(batch, lambda size: size <= CPU_MICRO_BATCH, even) for batch in sorted(set(effective_batches))}
    )


def plan_from_estimate(
    estimate: MemoryEstimate,
    effective_batches: Iterable[int],
    share_mib: float,
    context_mib: float,
    even: bool = False,
    subject: str = "this model",
    only: int | None = None,
) -> Plan:
    """Returns the plan that `estimate` allows a trial whose allocator may reserve `share_mib`: the largest micro-batch
    first, speed being unknown.

    subject: what is planned for, in messages. only: this micro-batch alone, whether it fits or not. Raises DeviceError
    when not even the smallest pair fits.
    """
    batches = sorted(set(effective_batches))
    largest = {
        accumulation: estimate.largest_micro_batch(PLANNED_SHARE * share_mib, accumulation, max(batches))
        for accumulation in (1, 2)
    }

    def fits_of(batch: int) -> Callable[[int], bool]:
        return lambda size: size <= largest[1 if size == batch else 2]

    pairs = {batch: pairs_of(batch, fits_of(batch), even) for batch in batches}
    if only is not None:
        pairs = _only(only, batches)
    elif not any(pairs.values()):
        raise too_small(subject, _smallest_need_mib(estimate, batches, even), share_mib, context_mib)
    return Plan(
        pairs,
        "estimate",
        share_mib,
        context_mib,
        estimate.fixed_mib,
        estimate.per_image_mib,
        {pair: estimated(estimate, pair) for made in pairs.values() for pair in made},
        _notes(pairs),
    )


def estimated(estimate: MemoryEstimate, pair: Pair) -> Figures:
    """Returns a pair's predicted peaks."""
    needs = (pair.micro_batch, pair.accumulation)
    return Figures(estimate.peak_allocated_mib(*needs), estimate.peak_reserved_mib(*needs))


def plan_from_points(
    points: Points,
    estimate: MemoryEstimate | None,
    effective_batches: Iterable[int],
    share_mib: float,
    context_mib: float,
    even: bool = False,
    subject: str = "this model",
    only: int | None = None,
) -> Plan:
    """Returns the plan that measured `points` allow: first the smallest micro-batch within 3 % of the fastest, then by
    size.

    estimate: for the predicted figures beside the measured ones; None for a model that cannot be traced. only: as in
    `plan_from_estimate`. Raises DeviceError when not even the smallest pair fits.
    """
    batches = sorted(set(effective_batches))
    pairs = fitting_pairs(points, batches, share_mib, even)
    if only is not None:
        pairs = _only(only, batches)
    elif not any(pairs.values()):
        raise too_small(
            subject, points.smallest_need_mib() or _smallest_need_mib(estimate, batches, even), share_mib, context_mib
        )

    def figures(pair: Pair) -> Figures:
        predicted = Figures() if estimate is None else estimated(estimate, pair)
        point = points.at(pair.micro_batch)
        if point is None:
            return Figures(predicted.predicted_allocated_mib, points.reserved_mib(pair.micro_batch))
        return Figures(
            predicted.predicted_allocated_mib,
            predicted.predicted_reserved_mib,
            point.peak_allocated_mib,
            point.peak_reserved_mib,
            point.images_per_s,
        )

    line = points.line()
    return Plan(
        pairs,
        "probe",
        share_mib,
        context_mib,
        line.fixed_mib if line is not None else None,
        line.per_image_mib if line is not None else None,
        {pair: figures(pair) for made in pairs.values() for pair in made},
        _notes(pairs),
    )


def fitting_pairs(
    points: Points, effective_batches: Iterable[int], share_mib: float, even: bool = False
) -> dict[int, tuple[Pair, ...]]:
    """Returns, by effective batch, the pairs that `points` let a trial take within `share_mib`: first the one to take,
    then by size.
    """
    planned_mib = PLANNED_SHARE * share_mib
    return {
        batch: _fastest_first(pairs_of(batch, lambda size: points.fits(size, planned_mib), even), points)
        for batch in effective_batches
    }


def _only(micro_batch: int, effective_batches: Iterable[int]) -> dict[int, tuple[Pair, ...]]:
    return {
        batch: (Pair(micro_batch, batch // micro_batch),) for batch in effective_batches if batch % micro_batch == 0
    }


def _fastest_first(pairs: Sequence[Pair], points: Points) -> tuple[Pair, ...]:
    """Returns `pairs` with the smallest micro-batch that is as fast as any moved to the front."""
    speeds = {
        pair: point.images_per_s
        for pair in pairs
        if (point := points.at(pair.micro_batch)) is not None and point.images_per_s is not None
    }
    if not speeds:
        return tuple(pairs)
    chosen = min(
        (pair for pair, speed in speeds.items() if speed >= AS_FAST * max(speeds.values())),
        key=lambda pair: pair.micro_batch,
    )
    return (chosen, *(pair for pair in pairs if pair != chosen))


def _notes(pairs: dict[int, tuple[Pair, ...]]) -> tuple[str, ...]:
    """Returns what a reader should know of effective batches that cannot be made, or only badly."""
    unmade = [str(batch) for batch, made in pairs.items() if not made]
    small = [
        str(made[0])
        for batch, made in pairs.items()
        if made and made[0].micro_batch < min(SMALLEST_FOR_BATCH_NORM, batch)
    ]
    notes = [f"no pair that fits makes an effective batch of {', '.join(unmade)}"] if unmade else []
    if small:
        notes.append(
            f"{', '.join(small)}: fewer than {SMALLEST_FOR_BATCH_NORM} images at once make noisy batch norms; "
            "no larger divisor fits"
        )
    return tuple(notes)


def _smallest_need_mib(estimate: MemoryEstimate | None, effective_batches: Sequence[int], even: bool) -> float | None:
    """Returns what the smallest pair of all reserves, as far as the estimate tells."""
    smallest = [
        Pair(sizes[-1], batch // sizes[-1]) for batch in effective_batches if (sizes := micro_batches_of(batch, even))
    ]
    if estimate is None:
        return None
    return min((estimate.peak_reserved_mib(pair.micro_batch, pair.accumulation) for pair in smallest), default=None)


def too_small(subject: str, smallest_mib: float | None, share_mib: float, context_mib: float) -> DeviceError:
    """Returns the error for a share in which nothing fits. smallest_mib: what the smallest pair reserves, where that is
    known.
    """
    needs = ""
    if smallest_mib is not None:
        needs = (
            f"; the smallest needs {smallest_mib / PLANNED_SHARE:.0f} MiB and {context_mib:.0f} MiB for the "
            "driver's context: "
        )
        needs += f"{smallest_mib / PLANNED_SHARE + context_mib:.0f} MiB for each trial on the card"
    return DeviceError(
        f"no trial of {subject} fits the budget, which leaves {share_mib:.0f} MiB for a trial's tensors{needs}"
    )
