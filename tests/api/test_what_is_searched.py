"""A search space as a file's name, as tables and as an object, with arguments over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_cropshield as tc
from tune_cropshield.api.space import new_space
from tune_cropshield.config.space import load_space
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

    read = load_space(tmp_path / "search.toml", {"search": {"trials": 9}})

    assert settings_mark(read) == settings_mark(space)  # else nobody could go on with it
    assert (read.search.trials, space.search.trials) == (9, 7)


def test_a_space_that_names_nothing_begins_with_what_is_usual_for_its_optimizer() -> None:
    axes = {"lr": {"log": [1e-4, 1e-1]}, "weight_decay": {"log": [1e-6, 1e-3]}, "optimizer": {"choice": ["sgd"]}}

    assert new_space({"space": {"trial": {"model": "tiny_cnn"}, "space": axes}}).start == (
        {"lr": 0.03, "weight_decay": 5e-4, "optimizer": "sgd"},
        {"lr": 0.1, "weight_decay": 5e-4, "optimizer": "sgd"},
    )


def test_what_is_usual_is_left_out_where_its_learning_rate_is_not_in_the_space_or_nothing_is_wanted() -> None:
    low, none = {"lr": {"log": [1e-5, 5e-4]}}, {"max_norm": {"choice": ["none", 1.0]}}

    assert new_space({"space": {"space": low}}).start == ({"lr": 4e-4},)
    assert new_space({"space": {"space": none}}).start == ()
    assert new_space({"space": {"space": low, "start": []}}).start == ()


def test_fine_tuning_begins_otherwise_than_training_from_scratch() -> None:
    tables = {"trial": {"model": "resnet18", "freeze_backbone": True}, "space": {"lr": {"log": [1e-5, 1e-1]}}}

    assert new_space({"space": tables}).start == ({"lr": 3e-4}, {"lr": 1e-3})


def test_borrowed_ranges_come_without_what_is_tried_first_in_them() -> None:
    assert [start["lr"] for start in new_space({"model": "resnet18"}).start] == [1e-3, 3e-3, 4e-4]
    assert [start["lr"] for start in new_space({"model": "tiny_cnn"}).start] == [1e-4, 3e-3, 1e-2]
