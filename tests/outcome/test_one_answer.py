"""What is said of a network beside one that gives every photograph the same answer."""

from __future__ import annotations

import pytest

from tune_cropshield.data.class_sizes import always_the_largest
from tune_cropshield.outcome.one_answer import one_answer_line, pairs_in, pairs_of, sizes_of
from tune_cropshield.training.predictions import Judged


def test_always_naming_the_largest_class_scores_its_share() -> None:
    always = always_the_largest({"healthy": 78, "rust": 1, "scab": 1})
    # F1 of healthy: 2 * 78 / (80 + 78); of the others 0.
    assert (always.largest, always.accuracy) == ("healthy", 0.975)
    assert always.macro_f1 == pytest.approx(156 / 158 / 3)
    assert always.balanced_accuracy == pytest.approx(1 / 3)


def test_a_network_that_calls_nearly_everything_healthy_is_said_to() -> None:
    pairs = pairs_in(["healthy", "rust"], [[97, 1], [1, 1]])
    assert one_answer_line(pairs, "val") is None or "it calls" not in str(one_answer_line(pairs, "val"))
    pairs = pairs_in(["healthy", "rust", "scab"], [[75, 0, 1], [3, 0, 0], [1, 0, 0]])
    assert one_answer_line(pairs, "val") == (
        "it calls 79 of 80 photographs healthy; always answering healthy would reach val_acc 0.9500, val_macro_f1 "
        "0.3248 and val_balanced_acc 0.3333"
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
