"""What is found out of a network by another process."""

from __future__ import annotations

import multiprocessing

import pytest

from tune_cropshield.commands.network_ahead import NetworkAhead, looked_at_ahead
from tune_cropshield.config import TrialConfig
from tune_cropshield.errors import ConfigError
from tune_cropshield.memory.estimate import EstimateUnavailable, MemoryEstimate
from tune_cropshield.memory.gpu_plan import estimate_for

TRIAL = TrialConfig(model="tiny_cnn", image_size=32, effective_batch=8, micro_batch=8, accumulation=1, epochs=1)
TOO_SMALL = TRIAL.model_copy(update={"model": "alexnet", "image_size": 16})


def test_the_other_process_estimates_what_this_one_would_in_whichever_precision_auto_stands_for() -> None:
    with looked_at_ahead(TRIAL, 3) as network:
        network.check_image_sizes()
        for trial in (TRIAL, TRIAL.model_copy(update={"precision": "fp16"})):
            assert network.estimate(trial, 3) == estimate_for(TRIAL, 3)
    assert not [process for process in multiprocessing.active_children() if process.name == "network-ahead"]


def test_of_another_network_or_number_of_classes_this_process_finds_out_itself() -> None:
    network = NetworkAhead(TRIAL, 3, answers=None)
    for trial, num_classes in ((TRIAL, 4), (TRIAL.model_copy(update={"image_size": 64}), 3), (TRIAL, 3)):
        assert network.estimate(trial, num_classes) == estimate_for(trial, num_classes)


def test_a_size_that_the_network_cannot_take_is_told_as_this_process_would() -> None:
    with looked_at_ahead(TOO_SMALL, 3) as network:
        with pytest.raises(ConfigError) as told:
            network.check_image_sizes()
        with pytest.raises(EstimateUnavailable):
            network.estimate(TOO_SMALL, 3)
    assert told.value.faults[0].startswith("image_size: alexnet cannot take pictures of 16 px")


def test_where_the_process_has_died_this_one_finds_out_itself() -> None:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    theirs.close()
    network = NetworkAhead(TRIAL, 3, ours)
    network.check_image_sizes()
    assert network.estimate(TRIAL, 3) == estimate_for(TRIAL, 3)


def test_an_estimate_is_a_real_one() -> None:
    estimate = NetworkAhead(TRIAL).estimate(TRIAL, 3)
    assert isinstance(estimate, MemoryEstimate) and estimate.peak_allocated_mib(8) > estimate.fixed_mib
