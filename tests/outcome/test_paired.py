"""The paired test, against SciPy's own and against numbers worked out by hand."""

from __future__ import annotations

import pytest
from scipy import stats

from tune_cropshield.outcome.paired import compare, in_sequence


def test_the_test_is_scipys_paired_t_test() -> None:
    values, baseline = [0.81, 0.84, 0.79, 0.86], [0.80, 0.80, 0.80, 0.81]

    found = compare(values, baseline, step=0.001)

    assert found is not None
    theirs = stats.ttest_rel(values, baseline)
    interval = theirs.confidence_interval(0.95)
    assert found.p_value == pytest.approx(theirs.pvalue)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.gain == pytest.approx(0.0225)


def test_three_seeds_call_a_gain_real_only_when_it_is_many_times_its_spread() -> None:
    """t of 2 degrees of freedom is 4.303 at 5 %: the gain must exceed 2.48 times the spread."""
    just_enough = compare([0.50 + gain for gain in (0.024, 0.025, 0.034)], [0.5] * 3, step=1e-9)
    too_little = compare([0.50 + gain for gain in (0.01, 0.02, 0.04)], [0.5] * 3, step=1e-9)

    assert just_enough is not None and too_little is not None
    assert just_enough.p_value == pytest.approx(0.01295, abs=1e-5)
    assert too_little.p_value == pytest.approx(0.1181, abs=1e-4)
    assert too_little.low < 0 < just_enough.low


def test_equal_gains_prove_nothing_beyond_what_whole_photographs_can_tell() -> None:
    """All three seeds gain one photograph of 20: the spread is 0, but rounding alone makes 0.02 of it."""
    found = compare([0.55, 0.55, 0.55], [0.50, 0.50, 0.50], step=1 / 20)

    assert found is not None
    assert found.spread == pytest.approx(0, abs=1e-12)
    assert found.p_value == pytest.approx(0.0513, abs=1e-4)


def test_no_difference_is_no_finding() -> None:
    found = compare([0.5, 0.5], [0.5, 0.5], step=0.01)

    assert found is not None
    assert (found.gain, found.p_value) == (0, 1)


def test_one_pair_is_not_tested() -> None:
    assert compare([0.9], [0.1], step=0.01) is None


def test_the_smallest_gain_that_would_have_shown_is_the_intervals_half() -> None:
    found = compare([0.51, 0.52, 0.54], [0.5] * 3, step=1e-9)

    assert found is not None
    assert found.smallest_gain_shown == pytest.approx(
        4.3027 * 0.015275 / 3**0.5, rel=1e-3
    )  # t at 5 %, two degrees of freedom


def test_in_a_sequence_nothing_counts_after_what_showed_nothing() -> None:
    assert in_sequence([0.01, 0.001, 0.2, 0.03]) == [0.01, 0.01, 0.2, 0.2]
    assert in_sequence([]) == []
