"""A search space as a file's name, as tables and as an object, with arguments over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_cropshield as tc
from tune_cropshield.api.space import new_space, resumed_space
from tune_cropshield.search.folder import save_settings
from tune_cropshield.search.trial_settings import settings_mark

TABLES: dict[str, Any] = {
    "trial": {"model": "tiny_cnn", "image_size": 32},
    "space": {"lr": {"log": [1e-4, 1e-2]}, "effective_batch": {"choice": [16, 32]}},
    "search": {"trials": 7},
    "start": [{"lr": 1e-3}],
}


def test_a_shipped_name_a_path_tables_and_an_object_are_the_same_space(tmp_path: Path) -> None:
    by_name = new_space({"space": "demo"})
    path = Path(__file__).parents[2] / "search_spaces" / "demo.toml"

    assert by_name.search.trials == 12
    assert new_space({"space": path}) == new_space({"space": str(path)}) == new_space({"space": by_name}) == by_name


def test_arguments_go_before_the_tables_own_settings(tmp_path: Path) -> None:
    space = new_space({"space": TABLES, "epochs": 3, "image_size": 48, "data": "leaves"})

    assert (space.search.trials, space.search.epochs, space.trial["image_size"]) == (7, 3, 48)
    assert space.data.dir == str(Path("leaves").absolute())
    assert space.space["lr"].log == (1e-4, 1e-2)
    assert space.start == ({"lr": 1e-3},)
    assert TABLES["search"] == {"trials": 7}  # what was given is left as it was


def test_every_fault_of_tables_and_arguments_is_told_at_once() -> None:
    with pytest.raises(tc.ConfigError) as told:
        new_space({"space": {"search": {"epochs": "many"}, "space": {"lr": {"log": [0.0, 1.0]}}}, "trials": 0})

    assert set(told.value.faults) == {
        'space: search.epochs: must be a whole number, but got "many"',
        "--trials: must be at least 1, but got 0",
        "space: space.lr: a log range must start above 0, but got low=0.0",
    }


def test_a_space_of_tables_is_read_back_as_the_same_search(tmp_path: Path) -> None:
    space = new_space({"space": TABLES})
    save_settings(tmp_path, space, "again")

    resumed = resumed_space(tmp_path, {"trials": 9})

    assert settings_mark(resumed) == settings_mark(space)  # else nobody could go on with it
    assert (resumed.search.trials, space.search.trials) == (9, 7)


def test_a_resumed_search_takes_its_own_settings(tmp_path: Path) -> None:
    save_settings(tmp_path, new_space({"space": TABLES}), "again")

    with pytest.raises(tc.UserError, match=r"leave out --space --epochs$"):
        resumed_space(tmp_path, {"space": "demo", "epochs": 3, "trials": 9})
    with pytest.raises(tc.UserError, match="--resume needs --out"):
        resumed_space(None, {})
