"""Trials of several networks and optimizers in one search: what is proposed, and what the journal holds of it."""

from __future__ import annotations

import json
import math
import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.memory.choose.pairs import Pair, Plan, plan_for_cpu, plan_of_families
from tune_cropshield.search.axes import axes_of
from tune_cropshield.search.endings import FINISHED, end_trial
from tune_cropshield.search.journal import open_study, quiet_optuna, read_study
from tune_cropshield.search.knowledge import Knowledge, Past, PastTrial, distance, knowledge_of
from tune_cropshield.search.plan_file import load_plan, save_plan
from tune_cropshield.search.proposals import OwnStudySampler
from tune_cropshield.search.pruning import build_pruning
from tune_cropshield.search.resources import Resources
from tune_cropshield.search.samplers import build_sampler
from tune_cropshield.search.searched import Searched, searched_in
from tune_cropshield.search.start_points import start_points
from tune_cropshield.search.steering import Steering
from tune_cropshield.search.surrogate import ABSENT
from tune_cropshield.search.trial_settings import pair_of, trial_config

TEXT = """
    [space]
    model = {choice = ["tiny_cnn", "resnet18"]}
    optimizer = {choice = ["adamw", "sgd"]}
    lr = {log = [1e-4, 1e-2]}
    effective_batch = {choice = [16, 32]}
    max_norm = {choice = ["none", 1.0]}
    [space.when.optimizer.sgd]
    lr = {log = [1e-3, 0.1]}
    momentum = {uniform = [0.8, 0.9]}
    [space.when.model.resnet18]
    image_size = {choice = [32, 48]}
    max_norm = {choice = [2.0]}
    [search]
    trials = 24
    epochs = 2
    pruning = "none"
    baseline = false
"""


def space(more: str = "") -> SearchSpace:
    return space_from(tomllib.loads(TEXT + more), {}, "s.toml")


def plan(of: SearchSpace) -> Plan:
    """A plan in which resnet18 takes batches of 16 alone."""
    of_each = {"tiny_cnn": plan_for_cpu((16, 32)), "resnet18": plan_for_cpu((16,))}
    return plan_of_families([(family, of_each[str(family["model"])]) for family in of.families])


def searched_with(sampler: str, folder: Path, more: str = "") -> Study:
    """A search of 24 trials, in which SGD at 1e-2 with a momentum of 0.9 and resnet18 is best."""
    found = space(more)
    searched = searched_in(found, plan(found))
    with quiet_optuna():
        study = open_study(folder, OwnStudySampler(partial(build_sampler, sampler, 3, num_trials=24), searched))
        for start in start_points(found, plan(found)):
            study.enqueue_trial(start)
        steering = Steering(study, searched, build_pruning(found.search), 24, reference_epochs=None)
        while (trial := steering.next_trial()) is not None:
            best = -2 if trial.params["optimizer"] == "sgd" else -3
            away = abs(math.log10(trial.params["lr"]) - best) / 2 + abs(trial.params.get("momentum", 0.8) - 0.9)
            value = 1 - away - 0.2 * (trial.params["model"] == "tiny_cnn")
            end_trial(study, trial, FINISHED, None, {1: value / 2, 2: value})
    return read_study(folder)


@pytest.mark.parametrize("sampler", ["random", "tpe", "gp", "auto"])
def test_every_trial_has_its_own_parameters_and_ranges_in_the_journal(sampler: str, tmp_path: Path) -> None:
    trials = searched_with(sampler, tmp_path).trials
    assert len(trials) == 24
    assert {trial.params["model"] for trial in trials} == {"tiny_cnn", "resnet18"}
    assert {trial.params["optimizer"] for trial in trials} == {"adamw", "sgd"}
    for trial in trials:
        sgd, resnet = trial.params["optimizer"] == "sgd", trial.params["model"] == "resnet18"
        assert list(trial.params) == [
            *("model", "optimizer"),
            *(["image_size"] if resnet else []),
            *("lr", "max_norm"),
            *(["momentum"] if sgd else []),
            "effective_batch",
        ]
        low, high = (1e-3, 0.1) if sgd else (1e-4, 1e-2)
        assert low <= trial.params["lr"] <= high
        assert trial.distributions["lr"] == FloatDistribution(low, high, log=True)
        assert trial.distributions["effective_batch"] == CategoricalDistribution((16, 32))
        assert trial.distributions["max_norm"] == CategoricalDistribution(("none", 1.0, 2.0))
        assert trial.params["max_norm"] in ((2.0,) if resnet else ("none", 1.0))
        assert trial.params["effective_batch"] in ((16,) if resnet else (16, 32))


@pytest.mark.parametrize("sampler", ["gp", "auto"])
def test_a_sampler_that_learns_finds_the_best_branch(sampler: str, tmp_path: Path) -> None:
    last = searched_with(sampler, tmp_path).trials[16:]
    assert sum(trial.params["optimizer"] == "sgd" and trial.params["model"] == "resnet18" for trial in last) >= 5


def test_a_start_gets_the_first_choices_with_which_its_values_hold() -> None:
    found = space("[[start]]\nlr = 0.05\n[[start]]\nmax_norm = 2.0\neffective_batch = 32\n[[start]]\nlr = 1e-3")
    assert start_points(found, plan(found)) == [
        {"optimizer": "sgd", "model": "tiny_cnn", "lr": 0.05},
        {"optimizer": "adamw", "model": "resnet18", "image_size": 32, "max_norm": 2.0, "effective_batch": 16},
        {"optimizer": "adamw", "model": "tiny_cnn", "lr": 1e-3},
    ]


def test_what_a_start_leaves_out_is_proposed_in_its_own_branch(tmp_path: Path) -> None:
    first = searched_with("random", tmp_path, "[[start]]\noptimizer = 'sgd'\nmodel = 'resnet18'").trials[0].params
    assert (first["optimizer"], first["model"], first["max_norm"], first["effective_batch"]) == (
        "sgd",
        "resnet18",
        2.0,
        16,
    )
    assert first["image_size"] in (32, 48)
    assert 1e-3 <= first["lr"] <= 0.1 and 0.8 <= first["momentum"] <= 0.9


class Watching(RandomSampler):
    """A sampler that keeps what it is shown."""

    seen: list[FrozenTrial]
    absent: Any

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self.seen = [other for other in study.get_trials() if other.number != trial.number]
        self.absent = study.user_attrs.get(ABSENT)
        return super().infer_relative_search_space(study, trial)


def test_a_sampler_sees_a_place_in_the_range_of_the_branch_and_the_middle_for_what_is_absent() -> None:
    found, watching = space(), Watching(seed=0)
    searched = searched_in(found, plan(found))
    with quiet_optuna():
        study = optuna.create_study(direction="maximize", sampler=OwnStudySampler(lambda number: watching, searched))
        for start in (
            {"optimizer": "adamw", "model": "tiny_cnn", "lr": 1e-3, "max_norm": "none", "effective_batch": 32},
            {"optimizer": "sgd", "model": "resnet18", "image_size": 48, "lr": 1e-2, "max_norm": 2.0, "momentum": 0.85}
            | {"effective_batch": 16},
        ):
            study.enqueue_trial(start)
        steering = Steering(study, searched, build_pruning(found.search), 3, reference_epochs=None)
        for _ in range(3):
            trial = steering.next_trial()
            assert trial is not None
            study.tell(trial, 0.5)
    absent = {"image_size": 0, "momentum": pytest.approx(0.85)}  # sizes are in order: 0 is the smaller one of two
    places = {"lr": pytest.approx(0.5), "max_norm": 0.75, "effective_batch": 0.75}
    first = {"optimizer": "adamw", "model": "tiny_cnn", **places, **absent}
    places = {"lr": pytest.approx(0.5), "max_norm": 0.5, "effective_batch": 0.5}
    second = {"optimizer": "sgd", "model": "resnet18", "image_size": 1, "momentum": pytest.approx(0.85), **places}
    assert [trial.params for trial in watching.seen] == [first, second]
    assert watching.absent[0] == ({"optimizer": "adamw", "model": "tiny_cnn"}, absent)


def test_places_on_axes_of_several_ranges() -> None:
    one = {
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "n": IntDistribution(1, 4),
        "word": CategoricalDistribution(("a",)),
    }
    other = {
        "lr": FloatDistribution(1e-3, 1.0, log=True),
        "n": IntDistribution(2, 3),
        "word": CategoricalDistribution(("b",)),
    }
    first, second = axes_of([one, other])
    assert list(first) == ["lr", "n"]  # each branch has one word: it goes with the branch
    assert [axis.meant(0.5) for axis in (first["lr"], second["lr"])] == pytest.approx([1e-3, 10**-1.5])
    assert [first["n"].meant(place) for place in (0.0, 0.2, 0.3, 0.99, 1.0)] == [1, 1, 2, 4, 4]
    assert [second["n"].meant(place) for place in (0.0, 0.4, 0.6, 1.0)] == [2, 2, 3, 3]
    assert [second["n"].shown(value) for value in (2, 3, 9)] == [0.25, 0.75, 0.75]
    assert (first["lr"].meant(0.0), first["lr"].meant(1.0)) == (1e-4, 1e-2)


def test_a_resumed_search_draws_from_the_lists_it_was_begun_with(tmp_path: Path) -> None:
    found = space()
    searched_with("random", tmp_path)
    now = plan_of_families([(family, plan_for_cpu((32,))) for family in found.families])
    again = searched_in(found, now).begun(read_study(tmp_path))
    kept = again.of({"optimizer": "sgd", "model": "resnet18"})
    assert kept.kept["effective_batch"] == CategoricalDistribution((16, 32))
    assert kept.own["effective_batch"] == CategoricalDistribution((16, 32))
    assert kept.own["max_norm"] == CategoricalDistribution((2.0,))


def test_each_family_has_its_own_pair_of_a_batch(tmp_path: Path) -> None:
    found = space()
    small, large = Plan({32: (Pair(16, 2),)}, notes=("tight",)), Plan({32: (Pair(32, 1),)})
    plans = plan_of_families([(family, large if family["model"] == "tiny_cnn" else small) for family in found.families])
    parameters = {"optimizer": "sgd", "model": "resnet18", "image_size": 48, "effective_batch": 32}
    assert str(pair_of(parameters, found, plans)) == "16x2"
    assert str(pair_of({**parameters, "model": "tiny_cnn"}, found, plans)) == "32x1"
    config = trial_config(found, {**parameters, "lr": 0.01}, plans, Resources("cpu", 1, 0, 1, 1, 1, 0.0))
    assert (config.model, config.image_size, config.pair, config.lr) == ("resnet18", 48, (16, 2), 0.01)
    assert plans.notes[0] == "model = resnet18, optimizer = adamw, image_size = 32: tight"
    save_plan(tmp_path, plans)
    again = load_plan(tmp_path)
    assert again is not None
    assert [(dict(family), own.pairs) for family, own in again.families] == [
        (dict(family), own.pairs) for family, own in plans.families
    ]


def test_a_plan_of_one_family_is_written_as_ever(tmp_path: Path) -> None:
    save_plan(tmp_path, plan_of_families([({}, plan_for_cpu((16,)))]))
    assert "families" not in json.loads((tmp_path / "plan.json").read_text())


def test_settings_of_two_branches_are_as_far_apart_as_their_places() -> None:
    found = space()
    one = {"optimizer": "adamw", "model": "tiny_cnn", "lr": 1e-3}
    assert distance(one, {"optimizer": "sgd", "model": "tiny_cnn", "lr": 1e-2}, found) == pytest.approx(
        math.sqrt(1 / 3)
    )


def test_earlier_trials_count_where_their_network_and_optimizer_are_among_the_choices() -> None:
    found = space()
    trials = (
        PastTrial({"lr": 0.05, "momentum": 0.85, "optimizer": "sgd", "effective_batch": 16, "max_norm": 1.0}, {1: 0.9}),
        PastTrial({"lr": 0.05, "optimizer": "adamw", "effective_batch": 16, "max_norm": 1.0}, {1: 0.2}),
    )
    known = knowledge_of([Past("past", trials, {"model": "tiny_cnn", "image_size": 64})], found)
    assert known.starts == (
        {"model": "tiny_cnn", "optimizer": "sgd", "lr": 0.05, "effective_batch": 16, "max_norm": 1.0, "momentum": 0.85},
    )
    assert [setting["lr"] for setting, _ in known.prior(found, [])] == [1e-2, 0.05]
    assert knowledge_of([Past("other", trials, {"model": "resnet50"})], found) == Knowledge({"other": 2}, (), ())


def test_a_space_without_such_choices_has_one_branch() -> None:
    rates: dict[str, BaseDistribution] = {"lr": FloatDistribution(1e-5, 1e-1, log=True)}
    assert Searched.alike(rates).of({"lr": 0.1}).kept == rates
