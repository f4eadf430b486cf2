"""How exact metrics of true and predicted classes are, by photographs that are drawn again."""

from __future__ import annotations

import pytest

from tune_cropshield.training.bootstrap import interval, standard_error
from tune_cropshield.training.predictions import Judged


def rows(*counts: tuple[str, str, int]) -> list[Judged]:
    return [Judged(f"{true}{taken}{n}", true, taken, 1.0) for true, taken, count in counts for n in range(count)]


def test_of_an_accuracy_it_is_the_standard_error_of_a_share() -> None:
    found = standard_error("val_acc", rows(("a", "a", 80), ("a", "b", 20)))
    assert found == pytest.approx(0.04, rel=0.1)  # sqrt(0.8 * 0.2 / 100)


def test_a_small_class_makes_a_balanced_accuracy_less_exact_than_the_accuracy() -> None:
    judged = rows(("a", "a", 90), ("b", "b", 5), ("b", "a", 5))
    # Half of the standard error of the recall of 10 photographs, sqrt(0.25 / 10) / 2, whose number varies too.
    assert standard_error("val_balanced_acc", judged) == pytest.approx(0.079, rel=0.12)
    assert standard_error("val_acc", judged) == pytest.approx(0.0218, rel=0.1)


def test_where_everything_is_right_no_photographs_drawn_are_wrong() -> None:
    assert interval("val_macro_f1", rows(("a", "a", 5), ("b", "b", 5))) == (1.0, 1.0)


def test_what_does_not_follow_from_classes_has_no_interval() -> None:
    judged = rows(("a", "a", 5), ("b", "b", 5))
    assert interval("val_loss", judged) is None and standard_error("val_auc", judged) is None
    assert interval("val_macro_f1", []) is None
