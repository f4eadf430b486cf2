"""Numbers as people read them: what is there is never rounded to nothing, and what lacks a little never to all."""

from __future__ import annotations

import math

import pytest

from tune_cropshield.outcome import words


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.0, "0 %"),
        (0.0004, "< 0.1 %"),
        (0.012, "1.2 %"),
        (0.0996, "10 %"),
        (0.5, "50 %"),
        (0.994, "99 %"),
        (249 / 250, "99.6 %"),
        (0.9996, "> 99.9 %"),
        (1.0, "100 %"),
        (1.5, "150 %"),
        (None, "–"),
        (math.nan, "–"),
    ],
)
def test_only_nothing_is_0_percent_and_only_all_is_100(share: float | None, shown: str) -> None:
    assert words.percent(share) == shown


@pytest.mark.parametrize(
    ("gain", "shown"),
    [(0.0, "+0.0"), (0.125, "+12.5"), (-0.02, "-2.0"), (1 / 5000, "+0.02"), (-1 / 2239, "-0.04"), (0.0005, "+0.1")],
)
def test_a_gain_of_one_photograph_is_not_0_points(gain: float, shown: str) -> None:
    assert words.points(gain) == shown


def test_one_wrong_in_thirty_thousand_is_not_an_accuracy_of_1() -> None:
    assert words.accuracy(29_999 / 30_000) == "> 0.9999"
    assert (words.accuracy(1.0), words.accuracy(0.91666), words.accuracy(None)) == ("1.0000", "0.9167", "–")


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (0.01, "< 0.1 s"), (0.44, "0.4 s"), (8, "8 s"), (13.2, "13 s"), (200, "3 min 20 s")],
)
def test_a_part_of_a_second_is_not_0_seconds(seconds: float, shown: str) -> None:
    assert words.seconds(seconds) == shown


def test_intervals_and_p_values() -> None:
    assert words.share_interval((0.92589, 1.0)) == "92.6 to 100 %"
    assert (words.p_equals(0.0434), words.p_equals(3.2e-19)) == ("p = 0.043", "p < 0.00001")
    assert (words.one_in(48), words.one_in(2239)) == ("2.1", "0.045")
