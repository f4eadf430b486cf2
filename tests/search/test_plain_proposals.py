"""What the samplers propose in a space without ranges of a choice's own, to the letter."""

from __future__ import annotations

import math
from functools import partial

import optuna
import pytest

from tune_cropshield.config.space_file import space_from
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.endings import FINISHED, end_trial, stop_trial
from tune_cropshield.search.halving import SuccessiveHalving
from tune_cropshield.search.journal import quiet_optuna
from tune_cropshield.search.knowledge import Knowledge
from tune_cropshield.search.proposals import OwnStudySampler
from tune_cropshield.search.samplers import build_sampler
from tune_cropshield.search.searched import searched_in
from tune_cropshield.search.start_points import known_trials
from tune_cropshield.search.steering import Steering

SPACE = space_from(
    {
        "trial": {"model": "tiny_cnn"},
        "space": {
            "lr": {"log": [1e-5, 1e-1]},
            "optimizer": {"choice": ["sgd", "adamw"]},
            "max_norm": {"choice": [2.0, "none", 0.5]},
            "dropout": {"uniform": [0.0, 0.5]},
            "early_stopping": {"int": [0, 7]},
            "augment": {"choice": ["moderate", "none"]},
            "effective_batch": {"choice": [64, 16, 32]},
            "label_smoothing": {"choice": [0.1]},
        },
        "search": {"trials": 18, "epochs": 4, "grace_epochs": 1, "baseline": False},
    },
    {},
    "plain.toml",
)
PAST = Knowledge({"past": 2}, (), tuple((({"lr": 1e-3, "optimizer": "sgd", "max_norm": 0.5, "dropout": 0.2,
    "early_stopping": 3, "augment": "none", "effective_batch": 32, "label_smoothing": 0.1}, quality))
    for quality in (0.2, 0.9)))  # fmt: skip


EXPECTED: dict[str, list[tuple[object, ...]]] = {
    "random": [
        ("0.0285547", "adamw", "0.5", "0.0139212", 5, "moderate", "0.1", 16),
        ("0.00126431", "adamw", "none", "0.345335", 5, "none", "0.1", 16),
        ("1.76656e-05", "adamw", "none", "0.0631899", 6, "none", "0.1", 16),
    ],
    "tpe": [
        ("0.0285547", "adamw", "0.5", "0.0139212", 5, "moderate", "0.1", 16),
        ("0.000186156", "adamw", "0.5", "0.128842", 2, "moderate", "0.1", 16),
        ("0.0012354", "adamw", "2", "0.055434", 1, "none", "0.1", 16),
    ],
    "gp": [
        ("0.0285547", "adamw", "0.5", "0.0139212", 5, "moderate", "0.1", 16),
        ("0.00295297", "adamw", "0.5", "0", 7, "moderate", "0.1", 64),
        ("0.00112374", "sgd", "0.5", "0", 7, "none", "0.1", 16),
    ],
    "auto": [
        ("0.00229354", "adamw", "0.5", "0.016189", 0, "moderate", "0.1", 16),
        ("0.000495953", "adamw", "0.5", "0", 0, "moderate", "0.1", 64),
        ("0.000459471", "sgd", "2", "0", 0, "moderate", "0.1", 32),
    ],
}


def proposed(sampler: str) -> list[tuple[object, ...]]:
    """The parameters of trials 3, 10 and 17 of a search with halving, whose best setting is lr 1e-3 without dropout."""
    plan = plan_for_cpu((16, 32, 64))
    searched = searched_in(SPACE, plan)
    with quiet_optuna():
        own = OwnStudySampler(
            partial(build_sampler, sampler, 7, num_trials=18), searched, partial(known_trials, SPACE, plan, PAST)
        )
        study = optuna.create_study(direction="maximize", sampler=own)
        study.enqueue_trial({"lr": 1e-2, "effective_batch": 16})
        steering = Steering(study, searched, SuccessiveHalving(4, 1, 2), 18, reference_epochs=None)
        reached: dict[int, dict[int, float]] = {}
        while (trial := steering.next_trial()) is not None:
            values = reached.setdefault(trial.number, {})
            for epoch in range(max(values, default=0) + 1, 5):
                away = abs(math.log10(trial.params["lr"]) + 3) / 4 + trial.params["dropout"]
                values[epoch] = 1 - away - 0.5 / epoch - 0.1 * (trial.params["optimizer"] == "adamw")
                if epoch == 4:
                    steering.judge(trial.number, epoch, values[epoch], 1.0)
                    end_trial(study, trial, FINISHED, None, values)
                elif steering.judge(trial.number, epoch, values[epoch], 1.0):
                    stop_trial(study, trial, values)
                    break
        shown = [study.trials[number].params for number in (3, 10, 17)]
    return [tuple(f"{value:.6g}" if isinstance(value, float) else value for value in one.values()) for one in shown]


@pytest.mark.parametrize(("sampler", "expected"), EXPECTED.items())
def test_a_plain_space_is_proposed_from_as_ever(sampler: str, expected: list[tuple[object, ...]]) -> None:
    assert proposed(sampler) == expected
