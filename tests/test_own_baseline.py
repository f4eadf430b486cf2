"""[baseline] in a space: one's own setting as trial 0, and no reference setting for networks that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import tune_cropshield as tc
from tune_cropshield.api.choice import choice_notes
from tune_cropshield.api.space import new_space
from tune_cropshield.config.reference import is_recommended
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.config.space_file import load_space
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.folder import save_settings
from tune_cropshield.search.start_points import name_of_trial_0, reference_notes, start_points

AXES: dict[str, Any] = {
    "lr": {"log": [1e-4, 1e-2]},
    "max_norm": {"choice": ["none", 1.0]},
    "effective_batch": {"choice": [16, 32]},
}


def tables(**more: Any) -> dict[str, Any]:
    return {"trial": {"model": "resnet18", "weight_decay": 1e-3}, "space": AXES, **more}


def test_ones_own_baseline_is_trial_0_and_may_be_partial(tmp_path: Path) -> None:
    space = new_space({"space": tables(baseline={"lr": 3e-3, "weight_decay": 1e-3}, start=[{"lr": 1e-3}])})

    plan = plan_for_cpu((16, 32))
    assert start_points(space, plan) == [{"lr": 3e-3, "max_norm": "none", "effective_batch": 32}, {"lr": 1e-3}]
    assert name_of_trial_0(space) == "the baseline"
    assert reference_notes(space) == []
    assert choice_notes({"space": "mine.toml"}, space) == []
    save_settings(tmp_path, space, "again")
    kept = load_space(tmp_path / "search.toml")
    assert kept.baseline == {"lr": 3e-3, "weight_decay": 1e-3} and name_of_trial_0(kept) == "the baseline"
    without = new_space({"space": tables(baseline={"lr": 3e-3}, start=[{"lr": 1e-3}]), "baseline": False})
    assert start_points(without, plan) == [{"lr": 1e-3}]


def test_ones_own_baseline_goes_before_the_reference_setting() -> None:
    own = new_space({"space": {"trial": {"model": "cropshield_cnn"}, "space": AXES, "baseline": {"lr": 1e-3}}})

    assert start_points(own, plan_for_cpu((16, 32)))[0]["lr"] == 1e-3


def test_every_fault_of_a_baseline_is_told_at_once() -> None:
    wrong = {"lr": 0.1, "weight_decay": 1e-4, "learning_rte": 1.0, "max_nrm": 1.0, "max_norm": 2.0, "momentum": 0.9}
    wrong |= {"epochs": 4, "micro_batch": 8}
    with pytest.raises(tc.ConfigError) as told:
        new_space({"space": tables(baseline=wrong), "trials": 0})

    assert set(told.value.faults) == {
        "--trials: must be at least 1, but got 0",
        "space: baseline.lr: 0.1 is not in the space (0.0001 to 0.01, logarithmic): widen it, or change the baseline",
        "space: baseline.max_norm: 2.0 is not in the space (one of none, 1.0): widen it, or change the baseline",
        "space: baseline.weight_decay: is not searched, and all trials have 0.001, but got 0.0001",
        "space: baseline.epochs: is set by [search] epochs",
        "space: baseline.micro_batch: is set by the plan",
        "space: baseline.learning_rte: is no setting; searched here: lr, max_norm, effective_batch",
        "space: baseline.max_nrm: is no setting; did you mean max_norm? searched here: lr, max_norm, effective_batch",
    }
    for shape in (3, [{"lr": 1e-3}], {"lr": [1e-3]}):
        with pytest.raises(tc.ConfigError, match=r"baseline: must be a table of parameters and values, like lr = 1e-4"):
            new_space({"space": tables(baseline=shape)})


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ({"model": "cropshield_cnn"}, True),
        ({"model": "efficientnet_b0", "pretrained": True}, True),
        ({"model": "efficientnet_b3"}, False),
        ({"model": "tiny_cnn"}, False),
        ({"model": "resnet18"}, False),
        ({"model": "resnet50", "optimizer": "sgd"}, True),
        ({"model": "resnet50", "optimizer": "sgd", "pretrained": True}, False),
        ({"model": "resnext50_32x4d", "optimizer": "sgd"}, False),
        ({"model": "cropshield_cnn", "optimizer": "sgd"}, False),
    ],
)
def test_there_is_a_reference_setting_only_for_what_the_guide_speaks_of(settings: dict[str, Any], known: bool) -> None:
    assert is_recommended(TrialConfig(**settings)) is known


def test_a_network_without_a_reference_setting_gets_none_and_it_is_said(drawn_leaves: Path) -> None:
    space = new_space({"space": tables(start=[{"lr": 1e-3}])})

    assert not space.search.baseline
    assert start_points(space, plan_for_cpu((16, 32))) == [{"lr": 1e-3}]
    told = (
        "there is no reference setting for resnet18 from scratch with AdamW: no gain is shown. [baseline] in a space "
    )
    assert choice_notes({"space": "mine.toml"}, space) == [f"{told}sets your own"]
    assert choice_notes({"space": "mine.toml", "baseline": False}, space) == []
    with pytest.raises(tc.ConfigError, match=r"^--baseline: there is no reference setting for resnet18 from scratch"):
        new_space({"space": tables(), "baseline": True})
    plain = {"data": drawn_leaves, "device": "cpu"}
    assert choice_notes(plain, new_space(plain))[1].startswith("there is no reference setting for tiny_cnn from scr")


def test_the_demonstration_has_a_baseline_of_its_own() -> None:
    space = new_space({})

    assert start_points(space, plan_for_cpu((16, 32, 64)))[0] == {
        "lr": 1e-4,
        "max_norm": "none",
        "weight_decay": 1e-4,
        "effective_batch": 32,
    }
    assert (space.search.baseline, name_of_trial_0(space)) == (True, "the baseline")
