"""`plan` on a machine without a GPU: an estimate, and said to be one."""

from __future__ import annotations

import json

import pytest

from tune_cropshield.cli import main

SMALL = ("plan", "--estimate", "--model", "tiny_cnn", "--image-size", "64")


def test_json_holds_the_promised_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json", "--vram", "rtx3050-laptop", "--precision", "bf16"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == [
        "model", "image_size", "precision", "classes", "optimizer", "budget_mib", "source",
        "fixed_mib", "per_image_mib", "pairs",
    ]  # fmt: skip
    assert [answer[key] for key in list(answer)[:7]] == ["tiny_cnn", 64, "bf16", 22, "adamw", 3596.0, "estimate"]
    assert list(answer["pairs"][0]) == [
        "effective_batch", "micro_batch", "accumulation", "peak_allocated_mib", "peak_reserved_mib", "images_per_s",
    ]  # fmt: skip
    assert all(pair["micro_batch"] * pair["accumulation"] == pair["effective_batch"] for pair in answer["pairs"])
    assert all(pair["images_per_s"] is None for pair in answer["pairs"])


def test_a_micro_batch_asked_for_is_shown_alone_whether_it_fits_or_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--json", "--micro-batch", "512", "--vram", "700MiB"]) == 0
    pairs = json.loads(capsys.readouterr().out)["pairs"]
    assert [(pair["micro_batch"], pair["accumulation"]) for pair in pairs] == [(512, 1)]
    assert pairs[0]["peak_reserved_mib"] > pairs[0]["peak_allocated_mib"] > 200
    assert main([*SMALL, "--micro-batch", "512", "--vram", "700MiB"]) == 0
    assert "does not fit" in capsys.readouterr().out


def test_the_table_says_that_it_is_an_estimate_and_what_the_guide_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--effective-batch", "64", "--vram", "8GB"]) == 0
    out = capsys.readouterr().out
    assert "An estimate, as --estimate asks: nothing was measured." in out
    assert "64 x 1" in out and "16 x 4" in out
    assert "2816 x 1" in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--vram", "banana"],
            "'banana' is not an amount of GPU memory: write 8, 8GB, 8GiB, 8000MB, auto or rtx4060-laptop, "
            "rtx3050-laptop",
        ),
        (["--vram", "auto"], "give an amount, like 8GB"),
        (["--vram", "520MiB"], "for each trial on the GPU"),
        (["--micro-batch", "3", "--effective-batch", "32"], "must divide effective_batch, but got 3 and 32"),
        (["--model", "alexnet", "--image-size", "32"], "alexnet cannot take pictures of 32 px"),
    ],
)
def test_bad_input_is_answered_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SMALL, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1
