"""A search space as a file's name, as tables and as an object, with arguments over it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_cropshield as tc
from tune_cropshield.api.choice import choice_notes, follows_time
from tune_cropshield.api.space import new_space
from tune_cropshield.config.space_file import load_space
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


def test_a_network_without_photographs_gets_the_ranges_of_its_family_in_a_short_demonstration() -> None:
    demo, resnet, vit = (new_space({"model": model}) for model in ("tiny_cnn", "resnet18", "vit_b_16"))

    assert demo == new_space({}) == new_space({"space": "demo"})
    assert (resnet.search.trials, resnet.search.epochs, resnet.trial["image_size"]) == (12, 8, 48)
    assert (resnet.trial["optimizer"], resnet.trial["pretrained"]) == ("sgd", False)
    assert resnet.space["lr"].log == (3e-3, 0.6)
    assert [start["lr"] for start in resnet.start] == [0.03, 0.1]
    assert (vit.trial["image_size"], vit.search.trials) == (224, 12)
    assert [start["lr"] for start in vit.start] == [1e-3, 3e-3, 4e-4]


def test_photographs_on_a_cpu_are_searched_with_a_small_network_and_it_is_said(drawn_leaves: Path) -> None:
    given = {"data": drawn_leaves, "device": "cpu"}
    space = new_space(given)

    assert (space.trial["model"], space.trial["image_size"]) == ("tiny_cnn", 64)
    assert (space.search.trials, space.search.epochs) == (24, 25)
    assert [start["lr"] for start in space.start] == [3e-3, 1e-2, 1e-3]
    told = choice_notes(given, space)[0]
    assert told.startswith("no GPU here, so a small network was chosen, which ")
    assert "can train: tiny_cnn at 64 px for 25 epochs, from scratch with AdamW. On a GPU it would be " in told
    assert not any("GPU" in note for note in choice_notes({**given, "space": "demo"}, space))


def test_what_was_chosen_gives_way_to_what_is_said_and_is_kept_for_a_resumption(
    drawn_leaves: Path, tmp_path: Path
) -> None:
    given = {"data": drawn_leaves, "device": "cpu", "epochs": 4, "image_size": 32, "trials": 5}
    space = new_space(given)

    assert (space.search.trials, space.search.epochs, space.trial["image_size"]) == (5, 4, 32)
    assert "tiny_cnn at 32 px for 4 epochs" in choice_notes(given, space)[0]
    save_settings(tmp_path, space, "again")
    kept = load_space(tmp_path / "search.toml")
    assert settings_mark(kept) == settings_mark(space) and kept.start == space.start


def test_own_losses_that_are_searched_are_kept_with_their_whole_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def poly(): ...\ndef fast(): ...\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    tables = {
        **TABLES,
        "space": {
            "loss": {"choice": ["focal", "mine.py:poly"]},
            "optimizer": {"choice": ["mine.py:fast", "adamw"]},
        },
        "start": [{"loss": "mine.py:poly"}],
    }

    space = new_space({"space": tables})

    assert space.space["loss"].choice == ("focal", f"{tmp_path / 'mine.py'}:poly")
    assert space.space["optimizer"].choice == (f"{tmp_path / 'mine.py'}:fast", "adamw")
    assert space.start == ({"loss": f"{tmp_path / 'mine.py'}:poly"},)


def test_own_networks_and_unknown_ones_need_no_weights(drawn_leaves: Path) -> None:
    space = new_space({"data": drawn_leaves, "device": "cpu", "model": "cropshield_cnn"})
    assert (space.trial["model"], space.trial["pretrained"], space.trial["image_size"]) == (
        "cropshield_cnn",
        False,
        224,
    )
    with pytest.raises(tc.ConfigError, match="--model: unknown model 'resnet19'; did you mean resnet18"):
        new_space({"data": drawn_leaves, "model": "resnet19"})


def test_a_quick_search_is_short_whatever_the_space(drawn_leaves: Path) -> None:
    for given in ({"data": drawn_leaves, "device": "cpu"}, {"space": "efficientnet_b0"}, {}):
        search = new_space({**given, "quick": True}).search
        assert (search.trials, search.epochs, search.time_budget, search.finishes) == (8, 8, "5m", False)
    said = {"space": "cropshield_cnn", "quick": True, "trials": 20, "time_budget": "1h", "finish": True}
    space = new_space(said)
    assert (space.search.trials, space.search.epochs) == (20, 8)
    assert (space.search.time_budget, space.search.finishes) == ("1h", True)
    assert choice_notes(said, space) == [
        "--quick: 20 trials of 8 epochs at most, and it ends after 1 h at the latest: to see how it goes, not to find "
        "the best setting"
    ]
    short = {"search": {"trials": 3, "epochs": 20, "grace_epochs": 10}, "space": {"lr": {"log": [1e-4, 1e-2]}}}
    search = new_space({"space": short, "quick": True}).search
    assert (search.trials, search.epochs, search.first_step) == (3, 8, 2)


def test_only_a_time_that_is_given_sets_the_number_of_trials() -> None:
    assert follows_time({"data": "leaves", "time_budget": "2h"})
    for more in ({"trials": 5}, {"quick": True}, {"space": "demo"}):
        assert not follows_time({"data": "leaves", "time_budget": "2h", **more})
    assert not follows_time({"data": "leaves"}) and not follows_time({"data": "leaves", "quick": True})
