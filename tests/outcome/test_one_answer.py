"""What is said of a network beside one that gives every photograph the same answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

from tune_cropshield.cli import main
from tune_cropshield.data.class_sizes import always_the_largest
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.outcome.one_answer import one_answer_line, pairs_in, pairs_of, sizes_of
from tune_cropshield.outcome.report.build import write_report
from tune_cropshield.outcome.summary import summary_lines
from tune_cropshield.search.journal import read_study
from tune_cropshield.training.predictions import Judged


def test_always_naming_the_largest_class_scores_its_share() -> None:
    always = always_the_largest({"healthy": 78, "rust": 1, "scab": 1})
    # F1 of healthy: 2 * 78 / (80 + 78); of the others 0.
    assert (always.largest, always.accuracy) == ("healthy", 0.975)
    assert always.macro_f1 == pytest.approx(156 / 158 / 3)
    assert always.balanced_accuracy == pytest.approx(1 / 3)


def test_a_network_that_calls_nearly_everything_healthy_is_said_to() -> None:
    pairs = pairs_in(["healthy", "rust", "scab"], [[75, 0, 1], [3, 0, 0], [1, 0, 0]])
    assert one_answer_line(pairs, "val") == (
        "it calls 79 of 80 photographs healthy; always answering healthy would reach val_acc 0.9500, val_macro_f1 "
        "0.3248 and val_balanced_acc 0.3333; class_weights, sampling and --metric val_macro_f1 work against that"
    )


def test_a_network_that_finds_the_few_is_only_compared() -> None:
    pairs = pairs_in(["healthy", "rust"], [[98, 0], [0, 2]])
    assert one_answer_line(pairs, "test") == (
        "always answering healthy would reach test_acc 0.9800, test_macro_f1 0.4949 and test_balanced_acc 0.5000"
    )


def test_of_equal_classes_nothing_is_said_unless_the_network_is_stuck() -> None:
    assert one_answer_line(pairs_in(["rust", "scab"], [[10, 0], [3, 7]]), "val") is None
    assert one_answer_line(pairs_in(["rust", "scab"], [[10, 0], [9, 1]]), "val") == (
        "it calls 19 of 20 photographs rust; always answering rust would reach val_acc 0.5000, val_macro_f1 0.3333 and "
        "val_balanced_acc 0.5000"
    )


def test_photographs_of_one_class_or_none_are_no_reason_to_say_anything() -> None:
    assert one_answer_line({}, "val") is None
    assert one_answer_line(pairs_in(["rust", "scab"], [[10, 0], [0, 0]]), "val") is None


def test_predictions_are_counted() -> None:
    rows = [Judged("a", "rust", "rust", 0.9), Judged("b", "rust", "scab", 0.6), Judged("c", "rust", "scab", 0.6)]
    assert pairs_of(rows) == {("rust", "rust"): 1, ("rust", "scab"): 2}
    assert sizes_of(pairs_of(rows)) == {"rust": 3}


def test_the_summary_and_the_report_say_it_beside_the_winners_figures(tmp_path: Path, shared_cache: Path) -> None:
    leaves = draw_leaves(tmp_path / "leaves", classes=2, per_class=30, image_size=32)
    rows = [Judged(f"healthy/{number}.jpg", "healthy", "healthy", 0.9) for number in range(19)]
    rows += [Judged("rust/1.jpg", "rust", "healthy", 0.8)]
    trial = InventedTrial(REFERENCE_SETTING, [0.95], predictions=rows)
    data = invent_search(tmp_path / "s", leaves, shared_cache, [trial])
    told = (
        "t calls 20 of 20 photographs healthy; always answering healthy would reach val_acc 0.9500, val_macro_f1 "
        "0.4872 and val_balanced_acc 0.5000; class_weights, sampling and --metric val_macro_f1 work against that"
    )

    assert f"i{told}" in summary_lines(read_study(tmp_path / "s"), tmp_path / "s", tmp_path / "s")
    page = write_report(tmp_path / "s", shared_cache, data).read_text(encoding="utf-8")
    assert f"I{told}." in page.replace("<wbr>", "")


def test_a_training_says_what_is_to_beat_at_its_start_and_at_its_end(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaves = draw_leaves(home / "leaves", classes=2, per_class=40, image_size=24)
    for photograph in sorted(sorted(leaves.iterdir())[1].iterdir())[8:]:
        photograph.unlink()
    largest = sorted(leaves.iterdir())[0].name
    config = home / "config.toml"
    config.write_text('[trial]\nmodel = "tiny_cnn"\nimage_size = 32\nloss = "focal"\nepochs = 1\n', encoding="utf-8")

    argv = ["train", "--config", str(config), "--data", str(leaves), "--out", str(home / "run"), "--device", "cpu"]
    assert main(argv) == 0

    told, _, ended = " ".join(capsys.readouterr().out.split()).partition("files in")
    reached = f"always answering {largest} would reach val_acc 0.8000, val_macro_f1 0.4444 and val_balanced_acc 0.5000"
    assert f"to beat: {reached}" in told
    assert reached in ended
