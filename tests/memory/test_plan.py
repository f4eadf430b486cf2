"""From what fits, and how fast it is, to the pairs that are proposed."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest

from tune_cropshield.errors import ConfigError, DeviceError
from tune_cropshield.memory.choose.for_gpu import candidates
from tune_cropshield.memory.choose.pairs import ANY, Allowed, Pair, Plan, pairs_of, parse_pair, plan_for_cpu
from tune_cropshield.memory.choose.plans import plan_from_estimate, plan_from_points
from tune_cropshield.memory.measure.points import Line, Point, Points, sizes_to_measure
from tune_cropshield.memory.measure.process import measure_points
from tune_cropshield.memory.predict.estimate import MemoryEstimate, estimate_memory

# EfficientNet-B0 on an H200 (micro-batch, MiB reserved, images/s): fp16, channels_last, 224 px
MEASURED = [(16, 884, 574), (32, 1692, 988), (64, 3314, 2616), (128, 6200, 4937), (256, 12220, 6228)]
SHARE_MIB = 7000.0


def measured(up_to: int = 128) -> Points:
    fitting = [Point(size, SHARE_MIB, mib * 0.9, mib, speed) for size, mib, speed in MEASURED if size <= up_to]
    return Points(
        [*fitting, *(Point(size, SHARE_MIB, reason="CUDA out of memory") for size, _, _ in MEASURED if size > up_to)]
    )


@cache
def estimate() -> MemoryEstimate:
    return estimate_memory("tiny_cnn", 22, 64, "fp16")


def plan(points: Points, *batches: int, share_mib: float = SHARE_MIB, allowed: Allowed = ANY) -> Plan:
    return plan_from_points(points, None, batches, share_mib, 500.0, allowed, "efficientnet_b0")


def test_the_fastest_pair_comes_first() -> None:
    made = plan(measured(), 32, 128, 256)
    assert [str(made.best(batch)) for batch in (32, 128, 256)] == ["32x1", "128x1", "128x2"]
    assert [str(pair) for pair in made.pairs[128]] == ["128x1", "64x2", "32x4", "16x8"]
    figures = made.figures[Pair(128, 2)]
    assert (figures.measured_allocated_mib, figures.measured_reserved_mib, figures.images_per_s) == (5580, 6200, 4937)


def test_of_pairs_that_are_equally_fast_the_smallest_micro_batch_is_taken() -> None:
    points = Points(
        [
            Point(size, SHARE_MIB, 1.0, 100.0 + size, speed)
            for size, speed in ((16, 900), (32, 975), (64, 1000), (128, 1004))
        ]
    )
    assert [str(pair) for pair in plan(points, 128).pairs[128]] == ["32x4", "128x1", "64x2", "16x8"]


def test_what_did_not_fit_when_measured_is_not_proposed() -> None:
    assert [str(pair) for pair in plan(measured(up_to=64), 256).pairs[256]] == ["64x4", "32x8", "16x16"]


def test_what_takes_nearly_the_whole_share_is_not_proposed_either() -> None:
    assert str(plan(measured(), 128, share_mib=6200 / 0.97).best(128)) == "128x1"
    assert str(plan(measured(), 128, share_mib=6200 / 0.97 - 1).best(128)) == "64x2"


def test_sizes_between_two_measured_ones_are_read_off_the_chord() -> None:
    made = plan(measured(), 96)
    assert str(made.pairs[96][0]) == "32x3"  # 96 and 48 fit, but nobody knows how fast they are
    assert made.figures[Pair(96, 1)].reserved_mib == pytest.approx((3314 + 6200) / 2)
    assert made.figures[Pair(96, 1)].measured_reserved_mib is None


def test_nothing_is_read_off_beyond_the_largest_measured_size() -> None:
    assert not measured().fits(129, 1e9)
    assert measured().reserved_mib(192) is None
    assert not Points([]).fits(1, 1e9)


def test_the_line_is_that_of_the_two_largest_sizes_that_fitted() -> None:
    line = measured().line()
    assert line == Line(pytest.approx(6200 - 128 * (6200 - 3314) / 64), pytest.approx(45.09, abs=0.01))
    assert measured(up_to=16).line() is None


def test_micro_batches_below_16_are_taken_only_where_no_larger_one_fits() -> None:
    assert [str(pair) for pair in pairs_of(64, lambda size: size <= 64)] == ["64x1", "32x2", "16x4"]
    assert [str(pair) for pair in pairs_of(64, lambda size: size <= 15)] == ["8x8"]
    assert [str(pair) for pair in pairs_of(8, lambda size: size <= 64)] == ["8x1"]
    assert pairs_of(64, lambda size: False) == ()


def test_mixing_keeps_micro_batches_even_and_at_least_16() -> None:
    assert [str(pair) for pair in pairs_of(54, lambda size: True, Allowed(even=True))] == ["54x1", "18x3"]
    assert [str(pair) for pair in pairs_of(54, lambda size: True)] == ["54x1", "27x2", "18x3"]
    assert [str(pair) for pair in plan_for_cpu([162], Allowed(even=True)).pairs[162]] == ["54x3", "18x9"]


def test_single_images_are_proposed_only_where_they_can_be_trained_on() -> None:
    two = Allowed(smallest=2)
    assert (ANY.of(7), two.of(7), two.of(1)) == ([7, 1], [7], [])
    assert sizes_to_measure([3], 3, two) == [2, 3]
    assert sizes_to_measure([3], 1, two) == [2, 3]
    assert sizes_to_measure([3], 1, ANY) == [1, 3]
    made = plan_for_cpu([1, 7, 65, 67], two)
    assert {batch: [str(pair) for pair in pairs] for batch, pairs in made.pairs.items()} == {
        1: [],
        7: ["7x1"],
        65: ["65x1"],  # 13 is too few for a batch norm
        67: ["67x1"],
    }
    assert made.notes == ("no micro-batch that the network can be trained with makes an effective batch of 1",)
    assert plan_for_cpu([1, 7, 65, 67]).notes == ()


def test_an_effective_batch_that_no_pair_makes_is_named() -> None:
    points = Points([Point(16, SHARE_MIB, 1.0, 100.0, 5.0)])
    made = plan(points, 16, 17)
    assert made.effective_batches == (16, 17)
    assert made.notes == ("1x17: fewer than 16 images at once make batch norm noisy; no larger divisor fits",)
    made = plan(points, 15, 16, allowed=Allowed(even=True))
    assert made.effective_batches == (16,)
    assert made.notes == ("no pair that fits makes an effective batch of 15",)
    with pytest.raises(ConfigError, match="makes an effective batch of 15; those that do: 16"):
        made.best(15)


def test_a_share_in_which_nothing_fits_says_how_much_the_smallest_trial_needs() -> None:
    with pytest.raises(
        DeviceError,
        match=r"leaves 500 MiB for a trial's tensors; the smallest needs 911 MiB and 500 .*: 1411 MiB for each",
    ):
        plan(measured(), 32, share_mib=500)
    with pytest.raises(DeviceError, match=r"no trial of tiny_cnn fits the budget.*the smallest needs \d+ MiB"):
        plan_from_estimate(estimate(), [32], 10.0, 500.0, subject="tiny_cnn")


def test_an_estimated_plan_takes_the_largest_micro_batch_that_fits() -> None:
    share_mib = estimate().peak_reserved_mib(64, 2) / 0.97 + 0.1
    made = plan_from_estimate(estimate(), [32, 256], share_mib, 500.0)
    assert (made.source, str(made.best(32)), str(made.best(256))) == ("estimate", "32x1", "64x4")
    figures = made.figures[Pair(64, 4)]
    assert figures.reserved_mib == figures.predicted_reserved_mib == estimate().peak_reserved_mib(64, 2)
    assert (figures.measured_reserved_mib, figures.images_per_s) == (None, None)


def test_the_spare_memory_is_what_the_largest_pair_leaves() -> None:
    made = plan(measured(), 32, 64)
    assert made.spare_mib(every_pair=True) == pytest.approx(0.97 * SHARE_MIB - 3314)
    faster_when_small = Points([Point(32, SHARE_MIB, 1.0, 1692.0, 3000.0), Point(64, SHARE_MIB, 1.0, 3314.0, 2000.0)])
    assert plan(faster_when_small, 64).spare_mib(every_pair=False) == pytest.approx(0.97 * SHARE_MIB - 1692)
    assert plan_for_cpu([32]).spare_mib(every_pair=True) == 0
    assert dataclasses.replace(made, figures={}).spare_mib(every_pair=False) == 0


def test_a_pair_is_written_and_read_as_16x2() -> None:
    assert parse_pair(str(Pair(16, 2))) == Pair(16, 2)
    with pytest.raises(ConfigError, match="like 16x2"):
        parse_pair("16*2")


def test_every_divisor_from_16_on_is_a_candidate() -> None:
    assert candidates([32, 48, 7], ANY) == [7, 16, 24, 32, 48]
    assert candidates([54], Allowed(even=True)) == [18, 54]


@pytest.mark.parametrize(
    "likely_largest, sizes",
    [
        (140, [16, 32, 64, 128]),
        (117, [16, 32, 64, 128]),  # the estimate may be a tenth too careful
        (100, [16, 32, 64]),
        (1000, [16, 32, 64, 128, 256]),
        (3, [2, 16]),  # one is tried all the same
        (None, [16, 32, 64, 128, 256]),
    ],
)
def test_sizes_are_measured_up_to_the_estimates_largest_and_two_near_it(
    likely_largest: int | None, sizes: list[int]
) -> None:
    assert sizes_to_measure([16, 32, 64, 128, 256], likely_largest) == sizes


def test_a_single_candidate_gets_two_sizes_beside_it_so_that_there_is_a_line() -> None:
    assert sizes_to_measure([64], 100) == [32, 48, 64]
    assert sizes_to_measure([54], 100, Allowed(even=True)) == [26, 40, 54]


def test_of_hundreds_of_candidates_a_few_are_measured_the_largest_among_them() -> None:
    sizes = sizes_to_measure(range(16, 257), 200)
    assert sizes == [16, 32, 64, 128, 220]


def test_measuring_stops_at_the_first_size_that_does_not_fit() -> None:
    progress: list[tuple[int, int]] = []
    points = measure_points(
        lambda size: (
            Point(size, 100.0, 1.0, 1.0, 1.0) if size < 64 else Point(size, 100.0, reason="CUDA out of memory")
        ),
        [128, 16, 64, 32],
        lambda done, total: progress.append((done, total)),
    )
    assert [point.micro_batch for point in points] == [16, 32, 64]
    assert progress == [(0, 4), (1, 4), (2, 4)]
