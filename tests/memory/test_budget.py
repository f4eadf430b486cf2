"""What a budget stands for, on a card and without one."""

from __future__ import annotations

import pytest
import torch

from tune_cropshield.config.units import Amount, parse_budget
from tune_cropshield.device import Card
from tune_cropshield.errors import ConfigError, DeviceError
from tune_cropshield.memory.choose.budget import Budget, resolve_budget
from tune_cropshield.memory.guard import cap_allocator

LAPTOP = Card("NVIDIA GeForce RTX 4060 Laptop GPU", "566.36", total_mib=8188, free_mib=7300)
LARGE = Card("NVIDIA H200", "580.159", total_mib=143_771, free_mib=143_000)


@pytest.mark.parametrize(
    "text, mib", [("8", 8192), ("8GB", 8192), ("8 gib", 8192), ("8000MB", 7629.39453125), ("512MiB", 512)]
)
def test_amounts_are_understood(text: str, mib: float) -> None:
    assert parse_budget(text) == Amount(mib, mib)


def test_a_named_laptop_leaves_what_the_driver_and_the_desktop_take() -> None:
    assert resolve_budget("rtx4060-laptop", None) == Budget(7438.0)
    assert resolve_budget("RTX3050-Laptop", LARGE) == Budget(3596.0)


@pytest.mark.parametrize("text", ["banana", "8 TB", "", "-8GB", "0GB", "1e3", "rtx4090-laptop"])
def test_anything_else_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="write 8, 8GB, 8GiB, 8000MB, auto or rtx4060-laptop, rtx3050-laptop"):
        parse_budget(text)


def test_auto_is_what_is_free_less_a_margin() -> None:
    budget = resolve_budget("auto", LAPTOP)
    assert budget.total_mib == 7300 - 256
    assert budget.notes == (
        "NVIDIA GeForce RTX 4060 Laptop GPU: 7300 MiB are free now; 256 of them are left to other programs",
    )


def test_auto_needs_a_gpu() -> None:
    with pytest.raises(DeviceError, match="give an amount, like 8GB"):
        resolve_budget("auto", None)


def test_a_budget_above_the_card_is_refused() -> None:
    with pytest.raises(
        DeviceError,
        match=r"a budget of 12GB \(12288 MiB\) is above the GPU's memory: NVIDIA GeForce RTX 4060 Laptop GPU has 8188",
    ):
        resolve_budget("12GB", LAPTOP)


def test_a_card_sold_as_8_gb_takes_a_budget_of_8_gb_but_no_more_than_is_free() -> None:
    budget = resolve_budget("8GB", LAPTOP)
    assert budget.total_mib == 7044
    assert budget.notes == (
        "NVIDIA GeForce RTX 4060 Laptop GPU: only 7300 MiB are free now, so the budget is 7044 MiB and not 8GB",
    )
    assert resolve_budget("4GB", LAPTOP) == Budget(4096)


def test_each_trial_on_the_card_pays_for_its_own_context() -> None:
    budget = Budget(8000, context_mib=500)
    assert [budget.share_mib(trials) for trials in (1, 2, 4)] == [7500, 3500, 1500]
    assert budget.share_mib(20) == 0


def test_a_cap_does_nothing_on_a_cpu() -> None:
    cap_allocator(1.0, torch.device("cpu"))
    assert torch.ones(2**20).sum() == 2**20
