"""Arguments of a wrong kind are told by their names, not by a traceback from somewhere below."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import tune_cropshield as tc

CALLS: dict[str, Callable[[Any], object]] = {
    "SEARCH_DIR: must be a path, but got": tc.open_search,
    "RUN_DIR: must be a path, but got": tc.evaluate,
    "--out: must be a path, but got": lambda wrong: tc.search(space="demo", out=wrong),
    "--config: must be a path, a RunConfig or a dict, but got": tc.train,
    "--top: must be a whole number of at least 1, but got": lambda wrong: tc.confirm(".", top=wrong),
    "--vram: must be a string, but got": lambda wrong: tc.plan(model="tiny_cnn", vram=wrong),
    "progress: must be True, False or a SearchView, but got": lambda wrong: tc.search(space="demo", progress=wrong),
}


@pytest.mark.parametrize("told", list(CALLS))
def test_an_argument_of_a_wrong_kind_is_a_user_error(told: str) -> None:
    with pytest.raises(tc.UserError, match=told):
        CALLS[told](3.5)
