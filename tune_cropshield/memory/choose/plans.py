"""The plans that an estimate or measured points allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tune_cropshield.errors import DeviceError
from tune_cropshield.memory.choose.pairs import (
    ANY,
    PLANNED_SHARE,
    SMALLEST_FOR_BATCH_NORM,
    Allowed,
    Figures,
    Pair,
    Plan,
    pairs_of,
)
from tune_cropshield.memory.measure.points import Points
from tune_cropshield.memory.predict.estimate import MemoryEstimate

# Smaller micro-batches that are this close to the fastest are as good: what they leave free is worth more.
AS_FAST = 0.97


def plan_from_estimate(
    estimate: MemoryEstimate,
    effective_batches: Iterable[int],
    share_mib: float,
    context_mib: float,
    allowed: Allowed = ANY,
    subject: str = "this model",
    only: int | None = None,
) -> Plan:
    """Returns the plan that `estimate` allows: the largest micro-batch first, speed being unknown.

    Args:
        estimate: of the trial's memory.
        effective_batches: those to plan for.
        share_mib: what the allocator of one trial may reserve.
        context_mib: what its process takes beside that, for messages and the plan's record.
        allowed: the micro-batches that trials may have.
        subject: what is planned for, in messages.
        only: this micro-batch alone, whether it fits or not.

    Raises:
        DeviceError: not even the smallest pair fits.
    """
    batches = sorted(set(effective_batches))
    largest = {
        accumulation: estimate.largest_micro_batch(PLANNED_SHARE * share_mib, accumulation, max(batches))
        for accumulation in (1, 2)
    }

    def fits_of(batch: int) -> Callable[[int], bool]:
        return lambda size: size <= largest[1 if size == batch else 2]

    pairs = {batch: pairs_of(batch, fits_of(batch), allowed) for batch in batches}
    if only is not None:
        pairs = _only(only, batches)
    elif not any(pairs.values()):
        raise _too_small(subject, _smallest_need_mib(estimate, batches, allowed), share_mib, context_mib)
    return Plan(
        pairs,
        "estimate",
        share_mib,
        context_mib,
        estimate.fixed_mib,
        estimate.per_image_mib,
        {pair: _estimated(estimate, pair) for made in pairs.values() for pair in made},
        _notes(pairs),
    )


def _estimated(estimate: MemoryEstimate, pair: Pair) -> Figures:
    """Returns a pair's predicted peaks."""
    needs = (pair.micro_batch, pair.accumulation)
    return Figures(estimate.peak_allocated_mib(*needs), estimate.peak_reserved_mib(*needs))


def plan_from_points(
    points: Points,
    estimate: MemoryEstimate | None,
    effective_batches: Iterable[int],
    share_mib: float,
    context_mib: float,
    allowed: Allowed = ANY,
    subject: str = "this model",
    only: int | None = None,
) -> Plan:
    """Returns the plan that measured `points` allow.

    First the smallest micro-batch within 3 % of the fastest, then by size.

    Args:
        points: what was measured.
        estimate: for the predicted figures beside the measured ones; None for a model that cannot be traced.

    The other arguments, and what is raised, are those of `plan_from_estimate`.
    """
    batches = sorted(set(effective_batches))
    pairs = fitting_pairs(points, batches, share_mib, allowed)
    if only is not None:
        pairs = _only(only, batches)
    elif not any(pairs.values()):
        raise _too_small(
            subject,
            points.smallest_need_mib() or _smallest_need_mib(estimate, batches, allowed),
            share_mib,
            context_mib,
        )

    def figures(pair: Pair) -> Figures:
        predicted = Figures() if estimate is None else _estimated(estimate, pair)
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
    points: Points, effective_batches: Iterable[int], share_mib: float, allowed: Allowed = ANY
) -> dict[int, tuple[Pair, ...]]:
    """Returns, by effective batch, the pairs that `points` let a trial take within `share_mib`.

    First the one to take, then by size.
    """
    planned_mib = PLANNED_SHARE * share_mib
    return {
        batch: _fastest_first(pairs_of(batch, lambda size: points.fits(size, planned_mib), allowed), points)
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
            f"{', '.join(small)}: fewer than {SMALLEST_FOR_BATCH_NORM} images at once make batch norm noisy; "
            "no larger divisor fits"
        )
    return tuple(notes)


def _smallest_need_mib(
    estimate: MemoryEstimate | None, effective_batches: Sequence[int], allowed: Allowed
) -> float | None:
    """Returns what the smallest pair of all reserves, as far as the estimate tells."""
    smallest = [Pair(sizes[-1], batch // sizes[-1]) for batch in effective_batches if (sizes := allowed.of(batch))]
    if estimate is None:
        return None
    return min((estimate.peak_reserved_mib(pair.micro_batch, pair.accumulation) for pair in smallest), default=None)


def _too_small(subject: str, smallest_mib: float | None, share_mib: float, context_mib: float) -> DeviceError:
    """Returns the error for a share in which nothing fits.

    smallest_mib: what the smallest pair reserves, where that is known.
    """
    needs = ""
    if smallest_mib is not None:
        needed_mib = smallest_mib / PLANNED_SHARE
        needs = (
            f"; the smallest needs {needed_mib:.0f} MiB and {context_mib:.0f} MiB for the CUDA driver: "
            f"{needed_mib + context_mib:.0f} MiB for each trial on the GPU"
        )
    return DeviceError(
        f"no trial of {subject} fits the budget, which leaves {share_mib:.0f} MiB for a trial's tensors{needs}"
    )
