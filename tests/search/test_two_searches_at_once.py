"""Ray is one for a whole process, and so is a search."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tune_cropshield.errors import UserError
from tune_cropshield.search.ray_runtime import _alone


def enter() -> bool:
    with _alone():
        return True


def test_a_search_in_another_thread_is_refused_while_one_runs() -> None:
    with ThreadPoolExecutor(1) as other:
        with _alone():
            assert enter()  # the same thread may: a search inside a runtime that is there already
            for _ in range(2):  # the refused one has not opened the way
                with pytest.raises(UserError, match="another search is running in this process"):
                    other.submit(enter).result()
        assert other.submit(enter).result()
