"""What a sampler is shown of a search, and what comes back: its own study, made from the journal's."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.search.endings import DIVERGED, FAILED, FINISHED, OUT_OF_MEMORY, end_trial, go_on_with, stop_trial
from tune_cropshield.search.halving import SuccessiveHalving
from tune_cropshield.search.journal import quiet_optuna
from tune_cropshield.search.proposals import OwnStudySampler
from tune_cropshield.search.samplers import build_sampler
from tune_cropshield.search.searched import Searched
from tune_cropshield.search.steering import Steering

SPACE: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "max_norm": CategoricalDistribution((1.0, "none", 0.5)),
}


class Watching(RandomSampler):
    """A sampler that keeps what it is shown."""

    seen: list[FrozenTrial]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        self.seen = [other for other in study.get_trials() if other.number != trial.number]
        return super().infer_relative_search_space(study, trial)


def told(sampler_for: Callable[[int], BaseSampler], **more: Any) -> Study:
    return optuna.create_study(
        direction="maximize", sampler=OwnStudySampler(sampler_for, Searched.alike(SPACE), **more)
    )


def test_a_sampler_sees_stopped_trials_with_a_value_and_every_parameter_on_its_axis() -> None:
    watching = Watching(seed=0)
    with quiet_optuna():
        study = told(lambda number: watching)
        trials = [study.ask(SPACE) for _ in range(7)]
        end_trial(study, trials[0], FINISHED, None, {1: 0.2, 2: 0.5})
        stop_trial(study, trials[1], {1: 0.3})
        stop_trial(study, trials[2], {1: 0.1})
        end_trial(study, trials[3], DIVERGED, "too much", {})
        end_trial(study, trials[4], FAILED, "its worker died", {1: 0.9})
        end_trial(study, trials[5], OUT_OF_MEMORY, "none left", {})
        proposed = study.ask(SPACE).params
    by_value = {
        trial.params["lr"]: (trial.state, None if trial.value is None else round(trial.value, 9))
        for trial in watching.seen
    }
    assert by_value == {
        trials[0].params["lr"]: (TrialState.COMPLETE, 0.5),
        trials[1].params["lr"]: (TrialState.COMPLETE, 0.6),  # what was stopped gains 0.3, as the one that went on did
        trials[2].params["lr"]: (TrialState.COMPLETE, 0.4),
        trials[3].params["lr"]: (TrialState.COMPLETE, 0.4),  # as bad as the worst
        trials[5].params["lr"]: (TrialState.COMPLETE, 0.4),
        trials[6].params["lr"]: (TrialState.RUNNING, None),
    }
    for trial in trials[:4]:
        place = next(seen.params["max_norm"] for seen in watching.seen if seen.params["lr"] == trial.params["lr"])
        assert (0.5, 1.0, "none")[place] == trial.params["max_norm"]
    assert proposed["max_norm"] in (0.5, 1.0, "none")
    assert [trial.state.name for trial in study.trials] == [
        *("COMPLETE", "RUNNING", "RUNNING", "PRUNED", "FAIL", "PRUNED", "RUNNING", "RUNNING"),
    ]


def test_one_that_is_gone_on_with_runs() -> None:
    watching = Watching(seed=0)
    with quiet_optuna():
        study = told(lambda number: watching)
        trial = study.ask(SPACE)
        stop_trial(study, trial, {1: 0.3})
        go_on_with(trial)
        study.ask(SPACE)
    assert [(seen.state, seen.value) for seen in watching.seen] == [(TrialState.RUNNING, None)]


def test_what_the_space_no_longer_holds_is_left_out_and_what_was_known_before_is_added() -> None:
    asked: list[list[float]] = []

    def prior(values: Sequence[float]) -> Sequence[tuple[Mapping[str, Any], float]]:
        asked.append(list(values))
        return [({"lr": 1e-3, "max_norm": "none"}, 0.7), ({"lr": 1e-3, "max_norm": 9.0}, 0.8), ({"lr": 1e-3}, 0.9)]

    watching = Watching(seed=0)
    with quiet_optuna():
        study = told(lambda number: watching, prior=prior)
        trial = study.ask({**SPACE, "max_norm": CategoricalDistribution((1.0, "none", 0.5))})
        study.tell(trial, 0.5)
        trial = study.ask({"lr": SPACE["lr"]})  # killed between two parameters
        study.ask(SPACE)
    values = [(seen.params["lr"], seen.params["max_norm"], seen.value) for seen in watching.seen]
    assert (1e-3, 2, 0.7) in values
    assert [value for *_, value in values].count(0.8) == [value for *_, value in values].count(0.9) == 0
    assert asked[-1] == []  # no own trial has reported an epoch


@pytest.mark.parametrize("name", ["auto", "tpe", "gp", "random"])
def test_a_search_that_was_interrupted_proposes_what_it_would_have_proposed(name: str) -> None:
    sampler_for = partial(build_sampler, name, 5, num_trials=12)

    def searched(study: Study, num_trials: int) -> list[dict[str, Any]]:
        with quiet_optuna():
            for _ in range(num_trials):
                trial = study.ask(SPACE)
                value = 1 - abs(math.log10(trial.params["lr"]) + 3) / 4
                end_trial(study, trial, FINISHED, None, {1: value})
        return [trial.params for trial in study.trials]

    whole = searched(told(sampler_for), 12)
    begun = told(sampler_for)
    searched(begun, 6)
    resumed = told(sampler_for)
    resumed.add_trials(begun.trials)
    assert searched(resumed, 6) == whole
    assert len({params["lr"] for params in whole}) == 12


class CountingGP(GPSampler):
    """Optuna's Gaussian process, counting the proposals that are its model's."""

    proposals = 0

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        found = super().sample_relative(study, trial, search_space)
        self.proposals += bool(found)
        return found


def test_the_gaussian_process_makes_the_proposals_of_a_search_with_halving() -> None:
    gp = CountingGP(seed=0, n_startup_trials=10, deterministic_objective=False)
    rates: dict[str, BaseDistribution] = {"lr": FloatDistribution(1e-5, 1e-1, log=True)}
    with quiet_optuna():
        own = OwnStudySampler(lambda number: gp, Searched.alike(rates))
        study = optuna.create_study(direction="maximize", sampler=own)
        rule = SuccessiveHalving(epochs=4, grace_epochs=1, reduction_factor=2)
        steering = Steering(study, Searched.alike(rates), rule, num_trials=40, reference_epochs=None)
        reached: dict[int, dict[int, float]] = {}
        while (trial := steering.next_trial()) is not None:
            values = reached.setdefault(trial.number, {})
            for epoch in range(max(values, default=0) + 1, 5):
                values[epoch] = 1 - abs(math.log10(trial.params["lr"]) + 3) / 4 - 0.5 / epoch
                if epoch == 4:
                    steering.judge(trial.number, epoch, values[epoch], 1.0)
                    end_trial(study, trial, FINISHED, None, values)
                elif steering.judge(trial.number, epoch, values[epoch], 1.0):
                    stop_trial(study, trial, values)
                    break
    assert len(study.trials) == 40
    assert gp.proposals >= 0.7 * 30  # without the values of stopped trials: none in most searches
    assert sum(trial.state == TrialState.COMPLETE for trial in study.trials) < 20


@pytest.mark.parametrize("sampler", [RandomSampler(seed=0)])
def test_all_parameters_are_proposed_together(sampler: BaseSampler) -> None:
    with quiet_optuna():
        study = told(lambda number: sampler)
        assert set(study.ask(SPACE).params) == {"lr", "max_norm"}
