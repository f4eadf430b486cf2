"""The parts of Ray and Optuna that their documentation does not offer: each is there, and does what is relied on."""

from __future__ import annotations

import inspect
from pathlib import Path

import optuna
import pytest
import ray
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from ray.tune.experiment import Trial

from tune_cropshield.search.journal import open_study, quiet_optuna
from tune_cropshield.search.optuna_private import overwrite_value, reopened
from tune_cropshield.search.ray_private import FAILURE, LOOPBACK_ONLY

RATES = {"lr": FloatDistribution(1e-5, 1e-1, log=True)}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """A study with one trial, which has reported 0.5 after its first epoch."""
    study = open_study(tmp_path)
    study.ask(RATES).report(0.5, 1)
    return study


def test_optunas_trials_can_be_reopened(study: optuna.Study, tmp_path: Path) -> None:
    study = open_study(tmp_path)  # as another process would
    with quiet_optuna():
        trial = reopened(study, study.trials[0])
    trial.report(0.6, 2)
    study.tell(trial, 0.6)
    assert [(known.state, known.intermediate_values) for known in study.trials] == [
        (TrialState.COMPLETE, {1: 0.5, 2: 0.6})
    ]


def test_optunas_intermediate_values_can_be_replaced(study: optuna.Study, tmp_path: Path) -> None:
    with quiet_optuna():
        overwrite_value(reopened(study, study.trials[0]), 1, 0.4)
    assert open_study(tmp_path).trials[0].intermediate_values == {1: 0.4}


def test_rays_switch_that_keeps_it_on_the_loopback_interface() -> None:
    from ray._private import ray_constants  # read when Ray is imported, as tests/conftest.py lets it be

    assert {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"} == LOOPBACK_ONLY
    assert not ray_constants.ENABLE_RAY_CLUSTER
    assert ray.util.get_node_ip_address() == "127.0.0.1"


def test_rays_file_of_a_trials_failures() -> None:
    """What is read from it is shown by test_search_with_ray.py: Ray writes it only while it runs."""
    assert isinstance(Trial.error_file, property)
    assert FAILURE in inspect.getsource(Trial.handle_error)
