"""Who is stopped by a pruning rule, and who goes on after all, on stored curves: no Ray runtime, nothing is trained."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from begun_search import Photographs, begun, prepared
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler

from tune_cropshield.config.space import SearchSettings
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.context import Search
from tune_cropshield.search.endings import FINISHED, METRIC, OUTCOME, end_stopped
from tune_cropshield.search.halving import SuccessiveHalving
from tune_cropshield.search.journal import read_study
from tune_cropshield.search.prepare import Prepared
from tune_cropshield.search.pruning import RayAsha, build_pruning
from tune_cropshield.search.searcher import StudySearcher

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
[space]
lr = {log = [1e-5, 1e-1]}
[search]
trials = 10
epochs = 4
grace_epochs = 1
sampler = "random"
"""


def judged(rule: SuccessiveHalving, epoch: int, values: dict[int, float]) -> list[bool]:
    """Whether each trial stops that comes to `epoch` with these values, one after another."""
    return [rule.judge(number, epoch, value, 1.0) for number, value in values.items()]


def test_a_trial_is_judged_among_all_that_came_to_its_step_itself_included() -> None:
    rule = SuccessiveHalving(epochs=9, grace_epochs=1, reduction_factor=3)  # steps: 1 and 3
    # The first has nobody to be compared with; of two to five the best one goes on, of six and seven the best two.
    told = judged(rule, 1, {0: 0.5, 1: 0.6, 2: 0.4, 3: 0.55, 4: 0.58, 5: 0.59, 6: 0.585})
    assert told == [True, False, True, True, True, False, True]
    assert judged(rule, 2, {1: 0.0, 5: 0.0}) == [False, False]  # no step
    # At the second step the best of those that came there goes on, the first one too: it has been compared already.
    assert judged(rule, 3, {1: 0.7, 5: 0.6}) == [False, True]
    assert judged(rule, 9, {1: 0.1}) == [False]  # the last epoch is no step


def test_one_that_was_stopped_goes_on_once_it_is_among_the_best_the_furthest_first() -> None:
    rule = SuccessiveHalving(epochs=9, grace_epochs=1, reduction_factor=3)
    judged(rule, 1, {0: 0.5, 1: 0.6, 2: 0.4, 3: 0.55, 4: 0.58})
    assert rule.goes_on([0, 2, 3, 4]) is None  # one of five is among the best: trial 1
    judged(rule, 1, {5: 0.1})
    assert rule.goes_on([0, 2, 3, 4, 5]) == 4  # two of six are
    assert rule.goes_on([0, 2, 3, 5]) is None  # it goes on
    judged(rule, 3, {1: 0.7, 4: 0.65})
    judged(rule, 1, {6: 0.2, 7: 0.2, 8: 0.2})
    assert rule.goes_on([0, 2, 3, 4, 5, 6, 7, 8]) == 3  # three of nine; trial 4 waits at the next step


def test_between_equal_accuracies_the_loss_decides_and_equals_in_both_go_together() -> None:
    for loss, stops in ((0.9, False), (1.0, False), (1.1, True), (math.inf, True)):
        rule = SuccessiveHalving(epochs=4, grace_epochs=1, reduction_factor=2)
        assert rule.judge(0, 1, 0.5, 1.0)
        assert rule.judge(1, 1, 0.5, loss) is stops, loss
        assert rule.goes_on([0]) == (None if loss == 0.9 else 0)


def test_at_the_end_those_go_on_that_were_ahead_of_the_winner_when_they_were_stopped() -> None:
    rule = SuccessiveHalving(epochs=8, grace_epochs=2, reduction_factor=2)  # steps: 2 and 4
    judged(rule, 2, {0: 0.5, 1: 0.7, 2: 0.6, 3: 0.65, 4: 0.9})
    judged(rule, 4, {1: 0.8, 4: 0.95, 3: 0.7})
    assert rule.goes_on_at_the_end([0, 2], winner=3) is None
    assert rule.goes_on_at_the_end([0, 1, 2], winner=3) == 1  # ahead at the second step
    assert rule.goes_on_at_the_end([0, 1, 2, 3], winner=4) is None


def test_others_are_measured_by_what_an_epoch_came_to_when_it_was_trained_again() -> None:
    rule = SuccessiveHalving(epochs=4, grace_epochs=1, reduction_factor=2)
    rule.judge(5, 1, 0.9, 1.0)
    assert not rule.judge(5, 1, 0.3, 1.0)  # not judged twice
    assert not rule.judge(6, 1, 0.5, 1.0)  # 0.9 would have stopped it


# A whole search, from its journal


class Killed(Exception):
    """What ends a search between an epoch's training and its judgement."""


@pytest.fixture(scope="module")
def found(drawn_leaves: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("halving")
    return prepared(Photographs(drawn_leaves, shared_cache), folder / "space.toml", SPACE)


CHANCE = random.Random(4)
# (best accuracy so far, loss) of each trial's epochs: in steps of a tenth, so that there are ties
CURVES = [
    [(round(min(0.2 + level + epoch / 20, 1.0), 1), round(CHANCE.random(), 3)) for epoch in range(1, 5)]
    for level in (CHANCE.random() * 0.4 + 0.3 - number / 40 for number in range(10))
]


def train(search: Search, folder: Path, kill_after: int | None = None) -> list[tuple[int, int]]:
    """Trains what the search asks for, one trial at a time, and returns each stretch: (trial, its last epoch).

    kill_after: so many epochs are trained in all; the last of them is not judged.
    """
    searcher, trained = StudySearcher(search), 0
    log: list[tuple[int, int]] = []
    for turn in range(1000):
        config = searcher.suggest(str(turn))
        if config == "FINISHED":
            end_stopped(search.study)
            return log
        assert isinstance(config, dict)
        number, run_dir = config["number"], Path(config["folder"])
        run_dir.mkdir(exist_ok=True)
        file = run_dir / "metrics.jsonl"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        saved = max((line["epoch"] for line in lines if line["epoch"] in config["checkpoint_after"]), default=0)
        for epoch in range(max(saved, 1), 5):  # the checkpoint's epoch is told again
            value, loss = CURVES[number][epoch - 1]
            line = {"epoch": epoch, "val_acc": value, "val_loss": loss}
            lines = [*(other for other in lines if other["epoch"] < epoch), line]
            file.write_text("".join(json.dumps(each) + "\n" for each in lines))
            trained += epoch > saved
            if trained == kill_after:
                raise Killed
            result: dict[str, Any] = {"epoch": epoch, METRIC: value, "val_loss": loss}
            if epoch == 4:
                search.steering.judge(number, epoch, value, loss)
                searcher.on_trial_complete(str(turn), {**result, OUTCOME: FINISHED})
            elif search.steering.judge(number, epoch, value, loss):
                search.pruned.add(number)
                searcher.on_trial_complete(str(turn), result)
            else:
                searcher.on_trial_result(str(turn), result)
                continue
            log.append((number, epoch))
            break
    raise AssertionError("it never ended")


def test_a_search_killed_anywhere_and_gone_on_with_decides_the_same(found: Prepared, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = train(begun(found, tmp_path / "whole"), tmp_path / "whole")
    trials = read_study(tmp_path / "whole").trials
    stretches = [number for number, _ in whole]
    again = [number for number in stretches if stretches.count(number) > 1]
    assert len(set(again)) >= 2 and 0 in again  # some were gone on with, the reference among them
    assert whole[-1] == (0, 4)  # at last
    epochs_of = {trial.number: max(trial.intermediate_values) for trial in trials}
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    for kill_after in range(1, sum(epochs_of.values()) + 1, 4):
        folder = tmp_path / f"killed-{kill_after}"
        folder.mkdir()
        with pytest.raises(Killed):
            train(begun(found, folder), folder, kill_after)
        train(begun(found, folder), folder)
        resumed = read_study(folder).trials
        assert {trial.number: max(trial.intermediate_values) for trial in resumed} == epochs_of, kill_after
        assert [trial.state for trial in resumed] == [trial.state for trial in trials]


# The other rules


@st.composite
def settings(draw: st.DrawFn) -> tuple[int, int, float]:
    """Returns epochs, grace_epochs and reduction_factor."""
    epochs = draw(st.integers(1, 40))
    return epochs, draw(st.integers(1, epochs)), draw(st.sampled_from([1.5, 2.0, 2.5, 3.0, 3.7, 4.0, 7.0]))


@given(settings(), st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_ray_asha_decides_as_rays_own_class(chosen: tuple[int, int, float], seed: int, num_trials: int) -> None:
    """Trials run side by side, epochs reported in any order; a trial may report the same best-so-far many times."""
    epochs, grace_epochs, reduction_factor = chosen
    ours = RayAsha(epochs, grace_epochs, reduction_factor)
    rays = AsyncHyperBandScheduler("epoch", "value", "max", epochs, grace_epochs, reduction_factor)
    chance = random.Random(seed)
    trials = {number: Trial("none", stub=True) for number in range(num_trials)}
    for trial in trials.values():
        rays.on_trial_add(None, trial)  # type: ignore[arg-type]
    best = dict.fromkeys(trials, 0.0)
    epoch = dict.fromkeys(trials, 0)
    while best:
        number = chance.choice(list(best))
        epoch[number] += 1
        best[number] = max(best[number], chance.choice([0.1, 0.2, 0.5, chance.random()]))
        result = {"epoch": epoch[number], "value": best[number]}
        stop = ours.judge(number, epoch[number], best[number], 1.0)
        if epoch[number] == epochs:  # it ends by itself
            assert not stop
            rays.on_trial_complete(None, trials[number], result)  # type: ignore[arg-type]
            del best[number]
            continue
        assert stop == (rays.on_trial_result(None, trials[number], result) == "STOP")  # type: ignore[arg-type]
        if stop:
            del best[number]


def test_without_pruning_nobody_is_stopped() -> None:
    rule = build_pruning(SearchSettings(pruning="none"))
    assert not any(rule.judge(number, 2, 1.0 - number / 10, 1.0) for number in range(10))


def test_a_users_own_rule_is_found_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Impatient:\n"
        "    def __init__(self, epochs, grace_epochs, reduction_factor):\n"
        "        self.last = epochs - grace_epochs\n"
        "    def judge(self, number, epoch, value, loss):\n"
        "        return epoch >= self.last\n"
        "def nothing(**settings):\n"
        "    return None\n"
    )
    rule = build_pruning(SearchSettings(pruning=f"{tmp_path / 'mine.py'}:Impatient", epochs=9, grace_epochs=3))
    assert [rule.judge(1, epoch, 0.5, 1.0) for epoch in (5, 6)] == [False, True]
    with pytest.raises(ConfigError, match="returned None, which has no method judge"):
        build_pruning(SearchSettings(pruning=f"{tmp_path / 'mine.py'}:nothing"))


def test_a_trial_that_jumps_over_steps_is_judged_at_the_last_of_them_only() -> None:
    rule = SuccessiveHalving(8, grace_epochs=1, reduction_factor=2)  # judged after 1, 2 and 4 epochs
    for number in range(2):
        rule.judge(number, 4, 0.9, 1.0)
    assert rule.judge(2, 4, 0.1, 1.0)
    assert not rule.judge(2, 5, 0.1, 1.0)  # not at the steps that it passed over


def test_a_loss_that_is_no_number_is_the_worst_of_equals() -> None:
    rule = SuccessiveHalving(8, grace_epochs=1, reduction_factor=2)
    rule.judge(0, 1, 0.5, math.nan)
    assert not rule.judge(1, 1, 0.5, 7.0)
    assert rule.goes_on([0]) is None
