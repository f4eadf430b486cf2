"""What trials are worth that were stopped: computed by hand."""

from __future__ import annotations

import pytest

from tune_cropshield.search.worth import Worth, worths


def test_one_that_was_stopped_gains_what_those_gained_that_went_on() -> None:
    found = worths(
        {
            0: {1: 0.1, 2: 0.3},
            1: {1: 0.4, 2: 0.5, 4: 0.7},
            2: {1: 0.4, 2: 0.4, 4: 0.6, 8: 0.9},
            3: {1: 0.3, 2: 0.5, 4: 0.6, 8: 0.8},
        }
    )
    # From epoch 2 to 4 trials 1 to 3 gained 0.2, 0.2 and 0.1, from 4 to 8 trials 2 and 3 gained 0.3 and 0.2.
    assert found[0].value == pytest.approx(0.3 + 0.5 / 3 + 0.25)
    assert found[1].value == pytest.approx(0.7 + 0.25)
    assert (found[2], found[3]) == (Worth(0.9, 0.0), Worth(0.8, 0.0))
    # The variance of three gains is known, that of two is taken to be 0.03 squared.
    assert found[1].variance == pytest.approx(0.0009)
    assert found[0].variance == pytest.approx(0.02 / 9 + 0.0009)


def test_where_nobody_went_on_it_is_worth_what_it_reached() -> None:
    assert worths({0: {1: 0.5}, 1: {2: 0.6}}) == {0: Worth(0.5, 0.0), 1: Worth(0.6, 0.0)}
    assert worths({}) == {}
