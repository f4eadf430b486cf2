"""When a training that became slow has spilled into system memory, and when it merely became slow."""

from __future__ import annotations

import torch

from tune_cropshield.training.retries.spilling import EpochMemory, SpillPolicy, has_spilled

USUAL = [EpochMemory(0.001, 3000, 4000), EpochMemory(0.0011, 3000, 3000), EpochMemory(0.0009, 3000, 2000)]


def test_a_cliff_in_speed_with_nearly_all_of_the_budget_reserved_is_a_spill() -> None:
    assert has_spilled(USUAL, EpochMemory(0.0016, 2800, 500), budget_mib=3000)


def test_a_cliff_in_speed_with_a_full_card_is_a_spill_without_any_budget() -> None:
    assert has_spilled(USUAL, EpochMemory(0.0016, 500, 20), budget_mib=None)


def test_a_slow_epoch_with_memory_to_spare_is_only_slow() -> None:
    assert not has_spilled(USUAL, EpochMemory(0.1, 2000, 500), budget_mib=3000)
    assert not has_spilled(USUAL, EpochMemory(0.1, 2000, 500), budget_mib=None)


def test_a_full_card_at_the_usual_speed_is_only_full() -> None:
    assert not has_spilled(USUAL, EpochMemory(0.0014, 3000, 0), budget_mib=3000)


def test_the_first_epoch_has_nothing_to_be_compared_with() -> None:
    assert not has_spilled([], EpochMemory(1.0, 3000, 0), budget_mib=3000)


def test_epochs_are_only_compared_with_those_at_the_same_micro_batch_and_size() -> None:
    policy = SpillPolicy(3000, torch.device("cpu"))
    slow, fast = EpochMemory(0.1, 3000, 0), EpochMemory(0.001, 3000, 0)
    assert not policy.spilled((32, 224), fast)
    assert not policy.spilled((32, 256), slow)
    assert not policy.spilled((32, 256), slow)
    assert not policy.spilled((32, 224), fast)
    assert policy.spilled((32, 224), slow)
    assert policy.spilled((32, 224), slow)  # a spilled epoch does not become the usual one
