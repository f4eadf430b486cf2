"""Which epoch of a run is its best."""

from __future__ import annotations

from tune_cropshield.training.run_folder import best_epoch, best_so_far

LINES = [{"epoch": epoch, "val_acc": value} for epoch, value in ((1, 0.5), (2, 0.75), (3, 0.625), (4, 0.75))]


def test_the_first_of_equally_good_epochs_is_the_best() -> None:
    assert best_epoch(LINES) == {"epoch": 2, "val_acc": 0.75}


def test_a_run_without_an_epoch_has_no_best() -> None:
    assert best_epoch([]) is None
    assert best_so_far([]) == {}


def test_the_best_so_far_never_falls() -> None:
    assert best_so_far(LINES) == {1: 0.5, 2: 0.75, 3: 0.75, 4: 0.75}
