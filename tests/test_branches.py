"""Networks, sizes and optimizers as choices, and ranges that hold for one value of a choice."""

from __future__ import annotations

import pickle
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.config.domain import Domain, covering
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import load_space, space_from
from tune_cropshield.config.starts import usual_starts
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.folder import save_settings
from tune_cropshield.search.trial_settings import settings_mark

TWO_OPTIMIZERS = """
    [trial]
    model = "tiny_cnn"
    [space]
    optimizer = {choice = ["adamw", "sgd"]}
    lr = {log = [1e-4, 1e-2]}
    [space.when.optimizer.sgd]
    lr = {log = [1e-3, 0.3]}
    momentum = {uniform = [0.8, 0.95]}
"""
NETWORKS = """
    [space]
    model = {choice = ["tiny_cnn", "resnet18"]}
    lr = {log = [1e-4, 1e-2]}
    [space.when.model.tiny_cnn]
    image_size = {choice = [32, 48]}
    [space.when.model.resnet18]
    image_size = {choice = [64]}
    pretrained = {choice = [true]}
"""


def space(text: str, **overrides: dict[str, Any]) -> SearchSpace:
    return space_from(tomllib.loads(text), overrides, "s.toml")


def faults(text: str, **overrides: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as error:
        space(text, **overrides)
    return [fault.replace("s.toml: ", "") for fault in error.value.faults]


def test_a_trial_has_the_ranges_of_its_own_choice() -> None:
    found = space(TWO_OPTIMIZERS)
    assert found.domains_of({"optimizer": "adamw"}) == {
        "optimizer": Domain(choice=("adamw", "sgd")),
        "lr": Domain(log=(1e-4, 1e-2)),
    }
    assert found.domains_of({"optimizer": "sgd"}) == {
        "optimizer": Domain(choice=("adamw", "sgd")),
        "lr": Domain(log=(1e-3, 0.3)),
        "momentum": Domain(uniform=(0.8, 0.95)),
    }


def test_the_families_are_all_combinations_that_trials_can_have() -> None:
    assert space(NETWORKS).families == (
        {"model": "tiny_cnn", "image_size": 32},
        {"model": "tiny_cnn", "image_size": 48},
        {"model": "resnet18", "image_size": 64},
    )
    assert space("[space]\nlr = {log = [1e-4, 1e-2]}\noptimizer = {choice = ['adamw', 'sgd']}").families == ({},)
    assert space(NETWORKS).image_sizes == {32, 48, 64}


def test_the_space_of_a_family_has_its_values_fixed() -> None:
    ours = space(NETWORKS).narrowed({"model": "resnet18", "image_size": 64})
    assert list(ours.space) == ["lr", "pretrained"]
    assert (ours.trial_config().model, ours.trial_config().image_size, ours.families) == ("resnet18", 64, ({},))


@pytest.mark.parametrize("text", [TWO_OPTIMIZERS, NETWORKS])
def test_a_space_with_ranges_of_choices_survives_its_file_and_pickle(text: str, tmp_path: Path) -> None:
    found = space(text)
    save_settings(tmp_path, found, "search")
    again = load_space(tmp_path / "search.toml")
    assert again.when == found.when
    assert settings_mark(again) == settings_mark(found)
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_range_of_a_choice_is_part_of_what_a_search_is() -> None:
    other = TWO_OPTIMIZERS.replace("[0.8, 0.95]", "[0.8, 0.9]")
    assert settings_mark(space(TWO_OPTIMIZERS)) != settings_mark(space(other))


def test_a_value_with_dots_that_lacks_its_quotes_is_told_so() -> None:
    text = """
        [space]
        lr = {log = [1e-4, 1e-2]}
        max_norm = {choice = ["none", 0.5, 1.0]}
        [space.when.max_norm.0.5]
        weight_decay = {log = [1e-4, 1e-2]}
    """
    assert (
        "space.when.max_norm.0: is no choice of max_norm; a name with dots needs quotes: "
        '[space.when.max_norm."0.5"]; its choices: none, 0.5, 1.0'
    ) in faults(text)


def test_every_fault_of_such_tables_is_told_at_once() -> None:
    text = """
        [space]
        optimizer = {choice = ["adamw", "sgd"]}
        model = {choice = ["tiny_cnn", "resnet18"]}
        lr = {log = [1e-4, 1e-2]}
        ema = {uniform = [0.0, 0.5]}
        image_size = {int = [32, 64]}
        [space.when.optimizer.sdg]
        ema = {uniform = [0.0, 0.9]}
        [space.when.optimizer.sgd]
        lr = {uniform = [1e-3, 0.3]}
        momentm = {uniform = [0.8, 0.9]}
        momentum = {uniform = [0.8, 1.9]}
        weight_decay = {log = [0.5, 0.1]}
        model = {choice = ["resnet18"]}
        [space.when.model.resnet18]
        lr = {log = [1e-3, 0.3]}
        [space.when.modle.x]
        dropout = {uniform = [0.0, 0.5]}
        [space.when.lr.x]
        dropout = {uniform = [0.0, 0.5]}
    """
    told = faults(text)
    assert [fault.split("known here:")[0] for fault in told] == [
        "space.image_size: can only be chosen from a list, like {choice = [128, 224]}",
        "space.when.optimizer.sgd.momentm: cannot be searched; did you mean momentum? ",
        "space.when.optimizer.sgd.weight_decay: `low < high` must hold, but got low=0.5, high=0.1",
        "space.when.optimizer.sdg: is no choice of optimizer; did you mean sgd? its choices: adamw, sgd",
        "space.when.modle: is no choice in [space], and only those have ranges of their own; did you mean model? "
        "choices in [space]: optimizer, model",
        "space.when.lr: lr is a range in [space], and only choices have ranges of their own",
        "space.when.optimizer.sgd.lr: all ranges of a parameter must be of one kind, but this is uniform and space.lr "
        "is log",
        "space.when.optimizer.sgd.model: has ranges of its own, so it can stand in [space] alone",
        "space.when.model.resnet18.lr: stands in space.when.optimizer.sgd.lr too, and a trial may have both: give lr "
        "in the tables of one choice",
        "space.when.optimizer.sgd.momentum: must be below 1, but got 1.9",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            TWO_OPTIMIZERS.replace("momentum =", "plateau_patience =").replace("uniform = [0.8, 0.95]", "int = [1, 5]")
            + "\n[space.when.optimizer.adamw]\nmomentum = {uniform = [0.8, 0.9]}",
            'space.momentum: momentum is only used with optimizer = "sgd", but optimizer is "adamw" (where optimizer = '
            "adamw)",
        ),
        (
            "[space]\nmodel = {choice = ['resnet18', 'tiny_cnn']}\npretrained = {choice = [true, false]}",
            "space.pretrained: tiny_cnn has no published weights: set pretrained = false or give a file (where model = "
            "tiny_cnn)",
        ),
        (
            TWO_OPTIMIZERS + "\n[space.when.optimizer.adamw]\nlr = {log = [1e-4, 1e-3]}",
            "space.lr: no trial has it, since each choice of optimizer has a lr of its own: leave it out",
        ),
        (
            "[trial]\nprogressive_sizes = {'3' = 64}\n[space]\nimage_size = {choice = [32, 64]}",
            "space.image_size: progressive_sizes in [trial] sets the size of images: leave one of the two out",
        ),
        (
            f"[space]\nimage_size = {{choice = {list(range(16, 81))}}}",
            "space: there are 65 combinations of image_size, at most 64, since each has a memory plan of its own",
        ),
        ("[space]\nwhen = 3", "space.when: must be a table, but got 3"),
        (
            TWO_OPTIMIZERS + "\n[space.when.model]\ntiny_cnn = 3",
            "space.when.model.tiny_cnn: must be a table, but got 3",
        ),
        (
            TWO_OPTIMIZERS + "\n[[start]]\noptimizer = 'adamw'\nlr = 0.1",
            "start.0: no trial can be so: lr = 0.1 is not in the space where optimizer = adamw (0.0001 to 0.01, "
            "logarithmic)",
        ),
        (
            TWO_OPTIMIZERS + "\n[[start]]\noptimizer = 'adamw'\nmomentum = 0.9",
            "start.0: no trial can be so: momentum is not searched where optimizer = adamw",
        ),
        (
            NETWORKS + "\n[[start]]\nmodel = 'tiny_cnn'\nimage_size = 64",
            "start.0: no trial can be so: model = tiny_cnn, image_size = 64 do not go together",
        ),
        (
            TWO_OPTIMIZERS + "\n[[start]]\nlr = 3.0",
            "start.0.lr: 3.0 is not in the space (0.0001 to 0.01, logarithmic or 0.001 to 0.3, logarithmic)",
        ),
        (
            TWO_OPTIMIZERS + "\n[baseline]\noptimizer = 'sgd'\nlr = 1e-4",
            "baseline.lr: 0.0001 is not in the space where optimizer = sgd (0.001 to 0.3, logarithmic): widen it, or "
            "change the baseline",
        ),
        (
            TWO_OPTIMIZERS + "\n[baseline]\nmomentum = 0.8",
            "baseline.momentum: is not searched there, and all trials where optimizer = adamw have 0.9, but got 0.8",
        ),
    ],
)
def test_a_fault_between_a_choice_and_the_rest_is_told_with_its_place(text: str, told: str) -> None:
    assert told in faults(text)


def test_a_network_asked_for_beside_a_choice_of_networks_is_told() -> None:
    told = faults(NETWORKS, trial={"model": "tiny_cnn"})
    assert told == ["space.model: is set in [trial] too (--model): it is either fixed or searched"]


def test_a_setting_may_be_searched_for_one_choice_and_fixed_for_the_others() -> None:
    text = TWO_OPTIMIZERS.replace('model = "tiny_cnn"', 'model = "tiny_cnn"\n    weight_decay = 0.5')
    found = space(text + "    weight_decay = {log = [1e-5, 1e-3]}\n")
    assert found.trial_config({"optimizer": "adamw"}).weight_decay == 0.5
    assert "space.when.optimizer.adamw.weight_decay: is set in [trial] too: it is either fixed or searched" in faults(
        text
        + "    weight_decay = {log = [1e-5, 1e-3]}\n[space.when.optimizer.adamw]\nweight_decay = {log = [1e-5, 1e-3]}"
    )


def test_a_setting_of_another_network_says_nothing() -> None:
    found = space(NETWORKS)
    assert found.fitted({"model": "resnet50", "lr": 1e-3}) == {}
    assert found.fitted({"model": "resnet18", "image_size": 96, "lr": 1.0, "pretrained": False}) == {
        "model": "resnet18",
        "lr": 1e-2,
        "image_size": 64,
    }


def test_the_domain_that_covers_others_holds_all_their_values() -> None:
    assert covering([Domain(log=(1e-4, 1e-2)), Domain(log=(1e-3, 0.3))]) == Domain(log=(1e-4, 0.3))
    assert covering([Domain(int=(3, 5)), Domain(int=(1, 4))]) == Domain(int=(1, 5))
    assert covering([Domain(choice=("a", 2)), Domain(choice=(1, 2))]) == Domain(choice=("a", 2, 1))


def test_a_network_of_ones_own_is_searched_under_the_whole_path_of_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def net(num_classes):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    found = space(
        "[space]\nmodel = {choice = ['tiny_cnn', 'mine.py:net']}\nlr = {log = [1e-4, 1e-2]}\n"
        "[space.when.model.'mine.py:net']\nlr = {log = [1e-3, 0.1]}\n[[start]]\nmodel = 'mine.py:net'"
    )
    whole = f"{tmp_path / 'mine.py'}:net"
    assert found.families == ({"model": "tiny_cnn"}, {"model": whole})
    assert found.domains_of({"model": whole})["lr"] == Domain(log=(1e-3, 0.1))
    assert found.start == ({"model": whole},)
    mark = settings_mark(found)
    (tmp_path / "mine.py").write_text("def net(num_classes):\n    return None\n")
    assert settings_mark(found) != mark


def test_what_is_fixed_for_the_only_choice_of_a_list_is_no_fault_of_the_default() -> None:
    found = space("[trial]\nmomentum = 0.8\n[space]\noptimizer = {choice = ['sgd']}\nlr = {log = [1e-4, 1e-2]}")
    assert (found.trial_config().momentum, found.trial_config({"optimizer": "sgd"}).momentum) == (0.8, 0.8)


def test_each_combination_is_tried_once_first_where_they_are_few() -> None:
    def starts(trials: int) -> list[tuple[Any, ...]]:
        text = TWO_OPTIMIZERS.replace("lr =", "image_size = {choice = [32, 48]}\n    lr =", 1)
        found = usual_starts(space(text, search={"trials": trials}))
        return [(start["optimizer"], start["image_size"], start["lr"]) for start in found]

    assert starts(12) == [("adamw", 32, 1e-3), ("adamw", 48, 1e-3), ("sgd", 32, 0.03), ("sgd", 48, 0.03)]
    assert starts(11) == [("adamw", 32, 1e-3), ("sgd", 32, 0.03)]


def test_ranges_for_the_values_of_something_that_is_no_choice_are_told_with_what_is_wrong_there() -> None:
    tables = {
        "space": {"optimizer": {"lr": ["adamw", "sgd"]}, "when": {"optimizer": {"sgd": {"lr": {"log": [0.1, 1]}}}}}
    }
    with pytest.raises(ConfigError, match=r"space\.optimizer"):
        space_from(tables, {}, "space.toml")
