"""The measured plan, on a card that exists only as a process of `probe_processes`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.device import Card
from tune_cropshield.errors import DeviceError
from tune_cropshield.memory.choose.budget import Budget
from tune_cropshield.memory.choose.for_gpu import estimate_for, plan_for_gpu
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.memory.measure.cache import identity
from tune_cropshield.memory.measure.process import Probe

CARD = Card("a card", "1.0", 8192.0, 8000.0)
TINY = TrialConfig(model="tiny_cnn", image_size=32)
UNTRACEABLE = TrialConfig(model="alexnet", image_size=32)


def plan(
    cache: Path,
    trial: TrialConfig = TINY,
    batches: tuple[int, ...] = (32, 128),
    budget_mib: float = 4000.0,
    **more: object,
) -> tuple[Plan, list[int]]:
    """Returns the plan and how many points were still to be measured before each measurement."""
    asked: list[int] = []
    made = plan_for_gpu(
        trial,
        22,
        batches,
        Budget(budget_mib),
        CARD,
        cache,
        probe=partial(Probe, program=("-P", "-m", "probe_processes", "small_card")),
        measuring=lambda done, total: asked.append(total - done),
        **more,  # type: ignore[arg-type]
    )
    return made, asked


def test_points_are_measured_once_and_then_known(tmp_path: Path) -> None:
    made, asked = plan(tmp_path)
    assert asked == [4, 3, 2, 1]  # 16, 32, 64, 128, the last of which does not fit
    assert (made.source, made.context_mib, made.share_mib) == ("probe", 700.0, 3300.0)
    assert {batch: [str(pair) for pair in pairs] for batch, pairs in made.pairs.items()} == {
        32: ["32x1", "16x2"],
        128: ["64x2", "32x4", "16x8"],
    }
    assert (made.fixed_mib, made.per_image_mib) == (100.0, 40.0)
    again, asked = plan(tmp_path)
    assert asked == []
    assert again == made


def test_more_memory_brings_what_did_not_fit_back(tmp_path: Path) -> None:
    plan(tmp_path)
    made, asked = plan(tmp_path, budget_mib=8000.0)
    assert asked == [1]
    assert [str(pair) for pair in made.pairs[128]] == ["64x2", "128x1", "32x4", "16x8"]  # 128 at once is no faster


def test_a_chosen_micro_batch_that_fits_by_its_neighbours_is_measured_before_it_is_taken(tmp_path: Path) -> None:
    batches = (16, 24, 32, 40, 48, 56, 64, 72)  # more divisors than are measured at first
    made, _ = plan(tmp_path, batches=batches)
    taken = [pairs[0] for pairs in made.pairs.values()]
    assert 40 in [pair.micro_batch for pair in taken]
    assert all(made.figures[pair].measured_reserved_mib is not None for pair in taken)
    assert plan(tmp_path, batches=batches) == (made, [])


def test_several_trials_share_the_budget(tmp_path: Path) -> None:
    made, _ = plan(tmp_path, budget_mib=8000.0, num_trials=2)
    assert made.share_mib == 8000 / 2 - 700
    assert str(made.best(128)) == "64x2"


def test_a_card_too_small_for_16_images_gets_what_fits(tmp_path: Path) -> None:
    made, _ = plan(tmp_path, budget_mib=1100.0)
    assert [str(pair) for pair in made.pairs[128]] == ["4x32"]
    assert made.notes == ("4x8, 4x32: fewer than 16 images at once make batch norm noisy; no larger divisor fits",)


def test_a_card_too_small_for_anything_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DeviceError,
        match=r"no trial of tiny_cnn at 32 px fits the budget, which leaves 0 MiB .* the smallest needs \d+ MiB",
    ):
        plan(tmp_path, budget_mib=300.0)


def test_a_card_that_was_too_small_before_is_refused_again_from_what_is_known(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(DeviceError, match="no trial of tiny_cnn"):
            plan(tmp_path, batches=(32,), budget_mib=830.0)


def test_a_model_that_cannot_be_traced_is_measured_throughout_and_that_is_said(tmp_path: Path) -> None:
    made, asked = plan(tmp_path, UNTRACEABLE)
    assert asked == [4, 3, 2, 1]
    assert "cannot be traced without a GPU" in made.notes[0] and made.notes[0].endswith("every figure is measured")
    assert str(made.best(128)) == "64x2"


def test_one_micro_batch_asked_for_is_measured_alone(tmp_path: Path) -> None:
    made, asked = plan(tmp_path, batches=(8, 32), only=8)
    assert asked == [1]
    assert [made.figures[made.best(batch)].measured_reserved_mib for batch in (8, 32)] == [420.0, 420.0]
    made, _ = plan(tmp_path, batches=(128,), only=128)
    assert made.figures[made.best(128)].measured_reserved_mib is None  # it does not fit


def test_mixing_asks_for_even_micro_batches(tmp_path: Path) -> None:
    made, _ = plan(tmp_path, TrialConfig(model="tiny_cnn", image_size=32, mixup=0.2), batches=(54,))
    assert [pair.micro_batch for pair in made.pairs[54]] == [54, 18]


def test_the_estimate_counts_the_stored_picture_where_it_is_larger_than_what_precision_saves() -> None:
    fp16, fp32 = (estimate_for(TINY.model_copy(update={"precision": precision}), 22) for precision in ("fp16", "fp32"))
    assert fp16.image_bytes == 32 * 32 * 3 * 4
    assert fp32.image_bytes == 32 * 32 * 3 * 4 + 36 * 36 * 3


def test_an_average_of_the_weights_is_planned_for() -> None:
    none, some = (
        estimate_for(TrialConfig(model="resnet18", image_size=32, ema=decay), 22).peak_allocated_mib(8)
        for decay in (0.0, 0.999)
    )
    assert some - none == pytest.approx(42.715, abs=0.001)  # 11,187,798 weights, 9,600 statistics, 20 counters


def test_settings_that_take_other_memory_are_measured_apart() -> None:
    plain = {"model": "tiny_cnn", "image_size": 32}
    changes: list[dict[str, Any]] = [
        {},
        {"ema": 0.99},
        {"dropout": 0.0},
        {"dropout": 0.5},
        {"mixup": 0.2},
        {"cutmix": 1.0},
        {"mixup": 0.2, "cutmix": 1.0},
        {"augment": "none"},
        {"max_norm": 1.0},
        {"optimizer": "sgd"},
        {"cuda_graphs": False},
    ]
    marks = [identity(TrialConfig(**{**plain, **change}), 22, "fp16", CARD) for change in changes]
    assert all(one != other for number, one in enumerate(marks) for other in marks[:number])


def test_with_memory_in_plenty_a_search_takes_the_largest_micro_batches_unmeasured_and_says_so(tmp_path: Path) -> None:
    made, asked = plan(tmp_path, budget_mib=8000.0, trust_ample_memory=True)
    assert asked == []
    assert made.source == "estimate"
    assert [str(pair) for pair in made.pairs[128]] == ["128x1", "64x2", "32x4", "16x8"]
    assert "estimated, not measured" in made.notes[-1]
    made, asked = plan(tmp_path, TrialConfig(model="cropshield_cnn", image_size=160), trust_ample_memory=True)
    assert asked  # 128 of these take more than half of 3,300 MiB
    assert made.source == "probe"
