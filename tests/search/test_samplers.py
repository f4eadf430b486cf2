"""Samplers by name: ours and a user's own."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import GPSampler, RandomSampler, TPESampler

from tune_cropshield.errors import ConfigError
from tune_cropshield.search.journal import quiet_optuna
from tune_cropshield.search.samplers import build_sampler

RATES = {"lr": FloatDistribution(1e-5, 1e-1, log=True)}


def proposals(number: int, name: str = "random") -> list[float]:
    with quiet_optuna():
        study = optuna.create_study(sampler=build_sampler(name, 0, number, num_trials=12))
        return [study.ask(RATES).params["lr"] for _ in range(3)]


@pytest.mark.parametrize(("name", "kind"), [("tpe", TPESampler), ("random", RandomSampler), ("gp", GPSampler)])
def test_a_name_stands_for_a_sampler(name: str, kind: type[optuna.samplers.BaseSampler]) -> None:
    assert isinstance(build_sampler(name, seed=0, number=0, num_trials=12), kind)


def test_the_same_seed_proposes_the_same_for_the_same_trial_and_something_else_for_another() -> None:
    assert proposals(0) == proposals(0)
    assert not set(proposals(0)) & set(proposals(3))


def test_a_users_own_sampler_is_found_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from optuna.samplers import PartialFixedSampler, RandomSampler\n"
        "def build(seed, num_startup_trials):\n"
        "    return PartialFixedSampler({'lr': 0.01}, RandomSampler(seed=seed))\n"
        "def nothing(seed, num_startup_trials):\n"
        "    return 'tpe'\n"
    )
    assert proposals(0, f"{tmp_path / 'mine.py'}:build") == [0.01] * 3
    with pytest.raises(ConfigError, match="returned 'tpe', which is no sampler of Optuna"):
        build_sampler(f"{tmp_path / 'mine.py'}:nothing", 0, 0, 12)
