"""The axes of the report's parallel coordinates."""

from __future__ import annotations

from pathlib import Path

from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

from tune_cropshield.outcome.report.parallel import Axis, choice_axis, numeric_axis, parallel_coordinates
from tune_cropshield.outcome.report.search_record import read_search


def test_choices_stand_at_even_distances_numbers_first_and_only_those_that_were_tried() -> None:
    axis = choice_axis("max_norm", [5.0, "none", 0.5], ("none", 0.5, 1.0, 5.0))

    assert axis == Axis("max_norm", [0.5, 1.0, 0.0], [(0.0, "0.5"), (0.5, "5"), (1.0, "none")])


def test_equal_factors_have_equal_lengths_on_a_log_axis_and_no_labels_lie_on_each_other() -> None:
    axis = numeric_axis("lr", [9.5e-6, 9.5e-5, 9.5e-4], log=True)

    assert [round(place, 2) for place in axis.places] == [0.0, 0.5, 1.0]
    assert [(round(place, 2), label) for place, label in axis.ticks] == [
        (0.0, "9.5e-06"),
        (0.51, "0.0001"),
        (1.0, "0.00095"),
    ]


def test_equal_differences_have_equal_lengths_on_an_even_axis() -> None:
    axis = numeric_axis("dropout", [0.0, 0.1, 0.4], log=False)

    assert [round(place, 2) for place in axis.places] == [0.0, 0.25, 1.0]
    assert [label for _, label in axis.ticks] == ["0", "0.1", "0.2", "0.3", "0.4"]


def test_a_value_that_never_changed_stands_in_the_middle() -> None:
    assert numeric_axis("lr", [1e-3, 1e-3], log=True) == Axis("lr", [0.5, 0.5], [(0.5, "0.001")])


def test_the_reference_and_the_winner_are_named_and_drawn_last(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    trials = [
        InventedTrial({**REFERENCE_SETTING, "lr": lr}, [value]) for lr, value in ((1e-4, 0.5), (1e-3, 0.9), (1e-5, 0.7))
    ]
    invent_search(tmp_path / "s", drawn_leaves, shared_cache, trials)

    lines = parallel_coordinates(read_search(tmp_path / "s"), ["lr", "max_norm"]).figure.data

    assert [line.name for line in lines] == ["", "reference setting (trial 0)", "winner (trial 1)"]
    assert [[round(place, 2) for place in line.y] for line in lines] == [
        [0.5, 0.0, 0.0],
        [0.0, 0.5, 0.0],
        [1.0, 1.0, 0.0],
    ]
