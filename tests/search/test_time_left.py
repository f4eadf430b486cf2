"""The time left that a search tells, on whole courses played on a clock of their own: the real pruning rule, and the
real view, which is told of them as a search tells it.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from tune_cropshield.config.space import SearchSettings
from tune_cropshield.config.units import describe_seconds
from tune_cropshield.search.halving import SuccessiveHalving
from tune_cropshield.search.views.time_left import seconds_left, surviving_shares
from tune_cropshield.search.views.view import SearchView, TrialLine
from tune_cropshield.training.metrics import METRIC_NAMES

SECONDS = {"s": 1, "min": 60, "h": 3600}


class Course:
    """A search of `trials` trials on `slots` slots: every trial has its own pace, and a start takes `start_s`."""

    def __init__(self, trials: int, epochs: int, slots: int, epoch_s: float, start_s: float, seed: int = 0) -> None:
        self.trials, self.epochs, self.slots = trials, epochs, slots
        chance = random.Random(seed)
        self.pace = [epoch_s * chance.uniform(0.7, 1.3) for _ in range(trials)]
        self.quality = [0.3, *(chance.random() for _ in range(trials - 1))]
        self.start_s = start_s
        self.now = 0.0
        self.rule = SuccessiveHalving(epochs, grace_epochs=2, reduction_factor=3)
        self.ended: list[TrialLine] = []
        self.stopped: dict[int, int] = {}  # trial -> the epochs that it was stopped after

    def line(self, number: int, epoch: int = 0) -> TrialLine:
        return TrialLine(number, {}, "16x1", self.epochs, epoch=epoch)

    def result(self, number: int, epoch: int) -> dict[str, Any]:
        accuracy = self.quality[number] * (1 - 0.8**epoch)
        metrics = {**dict.fromkeys(METRIC_NAMES, 1.0), "epoch": epoch, "val_acc": accuracy}
        return {
            **metrics,
            "best_val_acc": accuracy,
            "best_value": accuracy,
            "best_epoch": epoch,
            "images_per_s": 1.0,
            "peak_vram_mib": 0.0,
        }

    def play(self, view: SearchView, told: Callable[[float], None], until_s: float = 1e9) -> list[tuple[int, int]]:
        """Plays it, calling `told` with the clock after each result; returns the trials under way at `until_s`."""
        waiting = list(range(len(self.ended), self.trials))
        to_the_end: set[int] = set()
        under_way: list[tuple[float, int, int]] = []  # when its next epoch is done, trial, epochs so far

        def start() -> None:
            """Starts what a search would: one that goes on after all, a new one, at last the reference setting."""
            number = self.rule.goes_on(self.stopped)
            if number is None and waiting:
                number = waiting.pop(0)
            elif number is None and 0 in self.stopped:
                number = 0
                to_the_end.add(0)
            if number is not None:
                epoch = self.stopped.pop(number, 0)
                self.ended = [line for line in self.ended if line.number != number]
                view.trial_started(self.line(number, epoch))
                heapq.heappush(under_way, (self.now + self.start_s + self.pace[number], number, epoch))

        while waiting and len(under_way) < self.slots:
            start()
        while under_way and self.now < until_s:
            self.now, number, epoch = heapq.heappop(under_way)
            result = self.result(number, epoch + 1)
            view.epoch_done(number, result)
            stop = self.rule.judge(number, epoch + 1, result["best_value"], 1.0) and number not in to_the_end
            if stop or epoch + 1 == self.epochs:
                if stop:
                    self.stopped[number] = epoch + 1
                self.ended.append(self.line(number, epoch + 1))
                view.trial_ended(number, "pruned" if stop else "finished", None)
                start()
            else:
                heapq.heappush(under_way, (self.now + self.pace[number], number, epoch + 1))
            told(self.now)
        return [(number, epoch) for _, number, epoch in under_way]


def seconds(text: str) -> float:
    """The seconds in "about 1 h 5 min left"."""
    words = text.removesuffix(" left").removeprefix("about ").removeprefix("at most ").split()
    return sum(float(count) * SECONDS[unit] for count, unit in zip(words[::2], words[1::2], strict=True))


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
@pytest.mark.parametrize(
    ("trials", "epochs", "slots", "epoch_s", "start_s"),
    [(40, 25, 1, 20.0, 5.0), (40, 25, 2, 20.0, 5.0), (12, 8, 2, 2.0, 1.0), (60, 12, 4, 30.0, 0.0)],
)
def test_the_time_left_is_right_within_a_factor_of_one_and_a_half(
    trials: int, epochs: int, slots: int, epoch_s: float, start_s: float, share: float
) -> None:
    ratios = []
    for seed in range(7):  # nobody can know which of the trials to come are good: it is right in the middle
        course = Course(trials, epochs, slots, epoch_s, start_s, seed)
        said = played(course)
        end = course.now
        now, text = max(told for told in said if told[0] <= share * end)
        ratios.append(seconds(text) / (end - now))
        assert said[-1][1] == ""
        assert all(seconds(text) >= 1 for _, text in said[course.slots : -1] if text)

    assert 1 / 1.5 <= statistics.median(ratios) <= 1.5, ratios


def played(course: Course) -> list[tuple[float, str]]:
    """Plays a whole course and returns what was said of the time left, after each result."""
    view = SearchView(clock=lambda: course.now)
    view.begin(course.trials, 0)
    view.trained_at_last = 0
    view.pruned_shares = SearchSettings(epochs=course.epochs, grace_epochs=2, reduction_factor=3).pruned_shares
    said: list[tuple[float, str]] = []
    course.play(view, lambda now: said.append((now, view.left_text())))
    return said


def test_after_a_resume_the_epochs_of_this_run_and_the_ends_of_all_count() -> None:
    course = Course(trials=40, epochs=25, slots=2, epoch_s=20.0, start_s=5.0)
    before = SearchView(clock=lambda: course.now)
    before.begin(40, 0)
    under_way = course.play(before, lambda now: None, until_s=1500.0)

    course.now += 100_000.0  # a night without power
    view = SearchView(clock=lambda: course.now)
    view.begin(40, len(course.ended))
    for line in course.ended:
        view.recall(line, "pruned")
    for number, epoch in under_way:
        view.trial_started(course.line(number, epoch))
        view.epoch_done(number, course.result(number, epoch))  # its checkpoint's epoch is told again, at once
    assert view.left_text() == ""  # nothing was measured in this run
    number, epoch = under_way[0]
    course.now += 20.0
    view.epoch_done(number, course.result(number, epoch + 1))

    # 40 slot seconds for the first epoch; what is left: those under way, and the rest at the mean length of all
    told = seconds(view.left_text())
    before_the_night = seconds(before.left_text())
    assert before_the_night * 1.5 < told < before_the_night * 2.5  # at half the pace that there was


def test_a_reference_that_runs_long_is_waited_for() -> None:
    now = 0.0
    view = SearchView(clock=lambda: now)
    view.begin(3, 0)
    view.trained_at_last = 0
    view.trial_started(TrialLine(0, {}, "16x1", 50))
    view.trial_started(TrialLine(1, {}, "16x1", 50))
    course = Course(trials=3, epochs=50, slots=2, epoch_s=1.0, start_s=0.0)
    for epoch in (1, 2):
        now = 10.0 * epoch
        for number in (0, 1):
            view.epoch_done(number, course.result(number, epoch))
    view.trial_ended(1, "pruned", None)
    view.trial_started(TrialLine(2, {}, "16x1", 50))
    for epoch in (1, 2):
        now += 10.0
        view.epoch_done(0, course.result(0, 2 + epoch))
        view.epoch_done(2, course.result(2, epoch))
    view.trial_ended(2, "pruned", None)

    assert view.left_text() == "about 7 min 40 s left"  # 46 epochs of trial 0 at 10 s


@pytest.mark.parametrize(("others", "told"), [(49, "about 30 s left"), (5, "")])
def test_a_reference_that_was_stopped_is_counted_where_it_is_trained_on_at_last(others: int, told: str) -> None:
    now = 0.0
    view = SearchView(clock=lambda: now)
    view.begin(others + 1, 0)
    view.trained_at_last = 0
    course = Course(trials=others + 1, epochs=4, slots=1, epoch_s=1.0, start_s=0.0)
    for number in range(others + 1):
        view.trial_started(course.line(number))
        now += 10.0
        view.epoch_done(number, course.result(number, 1))
        view.trial_ended(number, "pruned", None)
    assert view.left_text() == told  # 3 epochs of trial 0 at 10 s, where all took 30 or more


def test_before_anything_ended_it_is_the_most_it_can_take() -> None:
    now = 0.0
    view = SearchView(clock=lambda: now)
    view.begin(4, 0)
    assert view.left_text() == ""
    view.trial_started(TrialLine(0, {}, "32x1", epochs=10))
    assert view.left_text() == ""
    now = 60.0
    view.epoch_done(0, Course(4, 10, 1, 1.0, 0.0).result(0, 1))

    assert view.left_text() == "at most 39 min left"  # 9 and 3 x 10 epochs at 60 s


def test_a_time_budget_ends_it_earlier() -> None:
    now = 0.0
    view = SearchView(clock=lambda: now)
    view.begin(4, 0)
    view.trials_end = 600.0
    view.trial_started(TrialLine(0, {}, "32x1", epochs=10))
    now = 60.0
    view.epoch_done(0, Course(4, 10, 1, 1.0, 0.0).result(0, 1))

    assert view.left_text() == "at most 9 min left"


def test_with_a_final_training_the_time_left_is_that_of_the_whole() -> None:
    now = 0.0
    view = SearchView(clock=lambda: now)
    view.begin(4, 0)
    view.trials_end, view.ends, view.finishes = 200.0, 600.0, True
    view.trial_started(TrialLine(0, {}, "32x1", epochs=10))
    now = 60.0
    view.epoch_done(0, Course(4, 10, 1, 1.0, 0.0).result(0, 1))
    assert view.left_text() == "about 9 min left, with the final training"

    view.trials_end = view.ends = None
    assert view.left_text() == "at most 39 min left before the final training"


def test_short_trials_that_ended_first_do_not_stand_for_all() -> None:
    # two of four ended after 2 epochs, the other two run and have come to 5: half of all trials train on to 10
    assert surviving_shares([2, 2], [5, 5], 10) == [1.0, 1.0, *[0.5] * 8]
    assert surviving_shares([], [3], 4) == [1.0] * 4
    assert surviving_shares([0, 4], [], 4) == [0.5] * 4
    # at a pruning step four more count as the rule means it: (2 + 4 x 0.5) of 8 stop there
    assert surviving_shares([2, 2], [5, 5], 4, {2: 0.5}) == [1.0, 1.0, 0.5, 0.5]
    assert surviving_shares([], [], 3, {1: 0.75}) == [1.0, 0.25, 0.25]


def test_waiting_trials_take_the_slot_that_is_free_first() -> None:
    assert seconds_left([8.0, 1.0], 2, 3.0, slots=2, seconds_per_epoch=10.0) == 80.0  # 1 + 3 + 3 < 8
    assert seconds_left([8.0], 4, 3.0, slots=2, seconds_per_epoch=1.0) == 11.0
    assert seconds_left([], 3, 2.0, slots=1, seconds_per_epoch=1.0) == 6.0
    assert seconds_left([8.0, 1.0], 2, 3.0, 2, 1.0, epochs_at_last=5.0) == 12.0  # 1 + 3 + 3 + 5
    assert describe_seconds(seconds_left([1.0], 1_000_000, 10.0, slots=1, seconds_per_epoch=0.36)) == "1000 h"
