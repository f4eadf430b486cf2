"""A search is named by its path, or by its name below results/runs; a near miss is told what it may have meant."""

from __future__ import annotations

from pathlib import Path

import pytest

import tune_cropshield as tc
from tune_cropshield.api.names import nearest, run_named, search_named

RUNS = Path("results/runs")


@pytest.fixture(autouse=True)
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two searches in results/runs, one of them in a folder, and one with a winner; photographs beside."""
    monkeypatch.chdir(tmp_path)
    for name in ("mango_leaves", "spring/first"):
        (RUNS / name).mkdir(parents=True)
        (RUNS / name / "search.toml").touch()
    for name in ("mango_leaves/best", "mango_leaves/t003"):
        (RUNS / name).mkdir()
        (RUNS / name / "config.toml").touch()
    Path("mango_leaves/rust").mkdir(parents=True)


def test_a_path_a_name_and_a_trial_of_a_name_are_found() -> None:
    assert search_named(str(RUNS / "mango_leaves")) == RUNS / "mango_leaves"
    assert search_named("mango_leaves") == RUNS / "mango_leaves"  # the photographs' folder does not hide it
    assert search_named("mango_leaves/t003") == RUNS / "mango_leaves" / "t003"
    assert search_named("spring/first") == RUNS / "spring" / "first"


def test_a_search_of_that_name_here_comes_first() -> None:
    Path("mango_leaves/search.toml").touch()

    assert search_named("mango_leaves") == Path("mango_leaves")


def test_a_folder_that_exists_and_holds_nothing_is_its_readers_business() -> None:
    assert search_named(str(RUNS)) == RUNS
    with pytest.raises(tc.UserError, match=r"holds no search \(study.journal is missing\)"):
        tc.open_search(RUNS)


def test_the_network_of_a_search_is_that_of_its_winner() -> None:
    assert run_named("mango_leaves") == RUNS / "mango_leaves" / "best"
    assert run_named("mango_leaves/t003") == RUNS / "mango_leaves" / "t003"
    assert run_named("spring/first") == RUNS / "spring" / "first"  # none yet: what reads it says so


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("mango_leafs", "SEARCH_DIR mango_leafs: there is no such folder; did you mean mango_leaves?"),
        ("results/runs/mango_leave", "did you mean mango_leaves?"),
        ("MANGO", "did you mean mango_leaves?"),
        ("first", "did you mean spring/first?"),
        ("frist", "did you mean spring/first?"),
        ("sugarcane", "there is no such folder, nor is there one of that name in results/runs (list shows all)"),
        ("/nowhere/at/all", "there is no such folder"),
        ("line\nbreak", "SEARCH_DIR line\\nbreak: there is no such folder"),
    ],
)
def test_what_is_not_there_is_told_with_what_may_be_meant(given: str, told: str) -> None:
    with pytest.raises(tc.UserError) as caught:
        search_named(given)

    assert told in str(caught.value) and "\n" not in str(caught.value)


def test_names_that_hold_what_was_asked_for_come_before_those_spelled_like_it() -> None:
    names = ["leaves", "leafs", "mango-leaf", "leaf-1", "sugarcane"]

    assert nearest("leaf", names) == ["leafs", "leaf-1", "mango-leaf"]
    assert nearest("laeves", names) == ["leaves"]
    assert nearest("maize", names) == []


def test_every_function_that_takes_a_search_says_the_same_of_a_name_that_is_not_there() -> None:
    told = "did you mean mango_leaves"
    for call in (tc.report, tc.export, tc.open_search, tc.confirm, tc.evaluate):
        with pytest.raises(tc.UserError, match=told):
            call("mango_leafs")
    with pytest.raises(tc.UserError, match=told):
        tc.predict("mango_leafs", "leaf.jpg")
