"""The guide's formula, as it really behaves."""

from __future__ import annotations

import pytest

from tune_cropshield.config.reference import guide_formula


def test_the_guides_own_example_gives_2816_times_1_and_not_16_times_4() -> None:
    assert guide_formula(64, 8) == (2816, 1)


def test_a_4_gb_card_is_told_to_take_768_images() -> None:
    assert guide_formula(32, 4) == (768, 1)


@pytest.mark.parametrize("vram_gb", [2.5, 2.501, 2.0])
def test_where_the_formula_divides_by_zero_or_turns_negative_there_is_no_answer(vram_gb: float) -> None:
    assert guide_formula(32, vram_gb) is None


def test_a_large_target_is_accumulated_and_rounded_down() -> None:
    assert guide_formula(1000, 8, input_mb_per_sample=20.0) == (281, 3)
