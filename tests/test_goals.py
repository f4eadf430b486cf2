"""What a search goes by: which metric, what is better by it, and what is written of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.config.goals import GOALS, VAL_ACC, Goal, goal_named, goal_of
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.trial_settings import settings_mark
from tune_cropshield.training.run_folder import best_epoch, best_of_parts, best_so_far, spread_of_parts

LOSS = Goal("val_loss", higher_is_better=False)
OWN = """
def score(labels, probabilities):
    return 1.0
def cost(labels, probabilities):
    return 1.0
cost.higher_is_better = False
"""


def space(**search: Any) -> SearchSpace:
    tables = {"trial": {"model": "tiny_cnn"}, "space": {"lr": {"log": [1e-5, 1e-1]}}, "search": search}
    return space_from(tables, {}, "space.toml")


def test_every_metric_of_ours_is_better_when_higher_but_the_loss() -> None:
    assert {name: goal.higher_is_better for name, goal in GOALS.items()} == {
        "val_acc": True,
        "val_macro_f1": True,
        "val_balanced_acc": True,
        "val_loss": False,
        "val_auc": True,
    }


def test_what_is_no_number_is_worse_than_every_number() -> None:
    assert (LOSS.rank(0.5), LOSS.rank(2.0), LOSS.rank(math.nan), LOSS.rank(math.inf)) == (
        -0.5,
        -2,
        -math.inf,
        -math.inf,
    )
    assert (VAL_ACC.rank(0.0), VAL_ACC.rank(math.nan)) == (0.0, -math.inf)
    assert VAL_ACC.value({"val_loss": 1.0}) is not None and math.isnan(VAL_ACC.value({"val_loss": 1.0}))


def test_a_gain_is_above_zero_where_the_first_is_better() -> None:
    assert LOSS.gain(0.5, 0.75) == 0.25 and VAL_ACC.gain(0.5, 0.75) == -0.25


def test_values_are_written_for_people() -> None:
    assert (VAL_ACC.named(0.91666), LOSS.named(12.5), LOSS.named(math.nan)) == (
        "val_acc 0.9167",
        "val_loss 12.5000",
        "val_loss –",
    )
    assert GOALS["val_auc"].text(0.99999) == "> 0.9999"


def test_an_own_metric_says_whether_lower_is_better(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    assert goal_named(f"{tmp_path / 'mine.py'}:score") == Goal("score", True)
    assert goal_named(f"{tmp_path / 'mine.py'}:cost") == Goal("cost", False)


def test_a_line_of_metrics_tells_its_goal() -> None:
    assert (VAL_ACC.marks(), LOSS.marks()) == ({}, {"metric": "val_loss", "higher_is_better": False})
    assert goal_of([{"epoch": 1, "val_acc": 0.5}]) == VAL_ACC  # as earlier versions wrote it
    assert goal_of([{"epoch": 1, "metric": "val_macro_f1"}]) == GOALS["val_macro_f1"]
    assert goal_of([{"epoch": 1, "metric": "cost", "higher_is_better": False}]) == Goal("cost", False)
    assert goal_of([]) == VAL_ACC


def lines(*values: float, **more: Any) -> list[dict[str, Any]]:
    return [
        {"epoch": epoch, "updates": epoch, "val_acc": 0.9 - value / 10, "val_loss": value, **LOSS.marks(), **more}
        for epoch, value in enumerate(values, 1)
    ]


def test_the_best_epoch_is_the_first_with_the_lowest_loss() -> None:
    assert best_epoch(lines(math.nan, 0.8, 0.5, 0.5, 0.6)) == lines(0, 0, 0.5)[2]
    assert list(best_so_far(lines(0.8, 0.9, 0.5)).values()) == [0.8, 0.8, 0.5]
    assert [math.isnan(value) for value in best_so_far(lines(math.nan, 0.9)).values()] == [True, False]


def test_of_parts_the_best_is_the_one_with_the_lowest_loss_and_the_trial_is_worth_their_mean() -> None:
    first = [{**line, "part": 0, "part_ended": line["epoch"] == 2} for line in lines(0.8, 0.6)]
    second = [
        {**line, "epoch": line["epoch"] + 2, "part": 1, "part_ended": line["epoch"] == 2} for line in lines(0.4, 0.9)
    ]
    del first[0]["val_acc"], first[1]["val_acc"]  # as of a version that did not know a metric
    both = [*first, *second]
    assert [line["val_loss"] for line in best_of_parts(both)] == [0.6, 0.4]
    best = best_epoch(both)
    assert best is not None
    assert (best["part"], best["epoch"], best["val_loss"], best["metric"]) == (1, 3, pytest.approx(0.5), "val_loss")
    assert "val_acc" not in best
    assert spread_of_parts(both) == pytest.approx(0.2 / 2**0.5)
    assert best_so_far(both)[4] == pytest.approx(0.5)


def test_a_search_hands_its_metric_to_every_trial() -> None:
    assert space(metric="val_macro_f1").trial_config().metric == "val_macro_f1"
    assert space().trial_config().metric == "val_acc"


@pytest.mark.parametrize(
    ("tables", "fault"),
    [
        (
            {"search": {"metric": "f1"}},
            "search.metric: no metric is called 'f1'. Known: val_acc, val_macro_f1, val_balanced_acc, val_loss, "
            "val_auc; your own is written as file.py:name",
        ),
        ({"search": {"metric": "val_los"}}, "search.metric: no metric is called 'val_los'; did you mean val_loss?"),
        ({"search": {"metric": "gone.py:score"}}, "gone.py cannot be read"),
        ({"trial": {"metric": "val_loss"}}, "trial.metric: is set by [search] metric"),
        ({"space": {"metric": {"choice": ["val_loss"]}}}, "space.metric: cannot be searched"),
        (
            {"search": {"metric": "val_loss", "stop_when_flat": True}},
            "`stop_when_flat` needs a metric whose noise is known (val_acc, val_macro_f1, val_balanced_acc), but got "
            "val_loss: leave it out",
        ),
    ],
)
def test_a_metric_that_cannot_be_taken_is_told(tables: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError) as raised:
        space_from(tables, {}, "space.toml")
    assert fault in "\n".join(raised.value.faults)


def test_the_metric_is_part_of_a_searchs_identity_unless_it_is_val_acc(tmp_path: Path) -> None:
    assert settings_mark(space(metric="val_acc")) == settings_mark(space())
    assert settings_mark(space(metric="val_loss")) != settings_mark(space())
    (tmp_path / "mine.py").write_text(OWN)
    own = space(metric=f"{tmp_path / 'mine.py'}:score")
    before = settings_mark(own)
    (tmp_path / "mine.py").write_text(OWN.replace("1.0", "2.0"))
    assert settings_mark(own) != before
