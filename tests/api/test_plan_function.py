"""`tune_cropshield.plan` on a machine without a GPU, or told to leave it alone."""

from __future__ import annotations

import pytest

import tune_cropshield as tc


def test_the_plan_is_an_estimate_and_holds_a_row_per_pair(capsys: pytest.CaptureFixture[str]) -> None:
    found = tc.plan(model="tiny_cnn", image_size=64, vram="rtx3050-laptop", effective_batch=64, estimate=True)

    assert capsys.readouterr() == ("", "")
    assert (found.plan.source, found.card, found.budget_mib) == ("estimate", None, 3596.0)
    assert [(row["micro_batch"], row["accumulation"]) for row in found.pairs] == [(64, 1), (32, 2), (16, 4)]
    assert all(row["images_per_s"] is None for row in found.pairs)
    assert found.pairs[0]["peak_reserved_mib"] >= found.pairs[0]["peak_allocated_mib"] > 0
    as_dict = found.as_dict()
    assert [as_dict[key] for key in ("model", "image_size", "precision", "classes")] == ["tiny_cnn", 64, "fp16", 22]
    assert as_dict["pairs"] == found.pairs


def test_every_fault_of_the_arguments_is_told_at_once() -> None:
    with pytest.raises(tc.ConfigError) as told:
        tc.plan(model="resnet51", image_size=3)

    assert [fault.partition(":")[0] for fault in told.value.faults] == ["--model", "--image-size"]
    with pytest.raises(tc.UserError, match="--precision: must be one of fp16, bf16, fp32, but got 'auto'"):
        tc.plan(precision="auto")  # type: ignore[arg-type]
