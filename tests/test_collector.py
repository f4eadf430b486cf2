"""The collector of garbage while libraries are loaded."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tune_cropshield.collector import resting


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    gc.enable()


def test_it_rests_inside_and_is_as_before_afterwards() -> None:
    with resting():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    with resting() as awake:
        awake()
        assert not gc.isenabled()
    assert not gc.isenabled()


def test_it_is_woken_early_and_after_an_error() -> None:
    with pytest.raises(KeyError), resting() as awake:
        awake()
        assert gc.isenabled()
        raise KeyError
    with pytest.raises(KeyError), resting():
        raise KeyError
    assert gc.isenabled()
