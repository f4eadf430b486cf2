"""How sure a share of photographs is: against published and hand-counted values."""

from __future__ import annotations

import pytest

from tune_cropshield.outcome.shares import OnSamePhotographs, interval, on_same_photographs
from tune_cropshield.training.predictions import Judged


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (48, 48, 0.9259, 1.0),  # n / (n + 1.96^2) = 48 / 51.84
        (0, 48, 0.0, 0.0741),
        (44, 48, 0.8045, 0.9671),
        (1, 1, 0.2065, 1.0),
        (15, 148, 0.0624, 0.1605),  # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
    ],
)
def test_wilsons_interval_also_at_the_ends(right: int, count: int, low: float, high: float) -> None:
    assert interval(right, count) == (pytest.approx(low, abs=6e-5), pytest.approx(high, abs=6e-5))


@pytest.mark.parametrize(
    ("first", "second", "p_value"),
    [
        (6, 1, 0.125),  # 2 (1 + 7) / 2^7
        (5, 0, 0.0625),  # 2 / 2^5
        (10, 0, 0.001953125),
        (4, 4, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemars_exact_test(first: int, second: int, p_value: float) -> None:
    assert OnSamePhotographs(48, first, second).p_value == pytest.approx(p_value)


def rows(**right: bool) -> list[Judged]:
    return [Judged(name, "rust", "rust" if is_right else "blight", 0.9) for name, is_right in right.items()]


def test_photographs_are_compared_by_name_in_whatever_order() -> None:
    found = on_same_photographs(rows(a=True, b=True, c=False, d=True), rows(d=False, c=True, b=True, a=False))

    assert found == OnSamePhotographs(4, 2, 1)


def test_other_photographs_are_not_compared() -> None:
    assert on_same_photographs(rows(a=True), rows(b=True)) is None
    assert on_same_photographs(rows(a=True), rows(a=True, b=True)) is None
    assert on_same_photographs([], []) is None
