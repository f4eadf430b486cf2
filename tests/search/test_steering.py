"""What a search trains next, in which order: a study and a pruning rule, nothing else."""

from __future__ import annotations

from collections.abc import Collection

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.study import Study

from tune_cropshield.config.reference import ends_reference
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.endings import FINISHED, end_trial, stop_trial
from tune_cropshield.search.halving import SuccessiveHalving
from tune_cropshield.search.journal import quiet_optuna
from tune_cropshield.search.pruning import PruningRule
from tune_cropshield.search.searched import Searched
from tune_cropshield.search.steering import Steering

SPACE: dict[str, BaseDistribution] = {"lr": FloatDistribution(1e-5, 1e-1, log=True)}
EPOCHS = 4


def halving() -> SuccessiveHalving:
    """Steps after epochs 1 and 2."""
    return SuccessiveHalving(EPOCHS, grace_epochs=1, reduction_factor=2)


def trained(study: Study, steering: Steering, qualities: list[float], most: int = 1000) -> list[tuple[int, int]]:
    """Trains what is next until nothing is, one trial at a time; returns the stretches: (trial, its last epoch).

    qualities: of each trial, its accuracy after any epoch. most: stretches.
    """
    log: list[tuple[int, int]] = []
    with quiet_optuna():
        while len(log) < most and (trial := steering.next_trial()) is not None:
            values = dict(study.get_trials(deepcopy=False)[trial.number].intermediate_values)
            for epoch in range(max(values, default=0) + 1, EPOCHS + 1):
                values[epoch] = qualities[trial.number]
                stops = steering.judge(trial.number, epoch, values[epoch], 1.0)
                if epoch == EPOCHS:
                    end_trial(study, trial, FINISHED, None, values)
                elif stops:
                    stop_trial(study, trial, values)
                    break
            log.append((trial.number, epoch))
    return log


def steered(num_trials: int, rule: PruningRule, reference_epochs: int | None = 2) -> tuple[Study, Steering]:
    with quiet_optuna():
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        return study, Steering(study, Searched.alike(SPACE), rule, num_trials, reference_epochs=reference_epochs)


def test_what_was_stopped_goes_on_before_something_new_and_the_reference_at_last() -> None:
    study, steering = steered(6, halving())
    log = trained(study, steering, [0.2, 0.9, 0.5, 0.1, 0.8, 0.3])
    assert log == [
        (0, 1),  # the first has nobody to be compared with
        (1, 4),  # the best at each step
        (2, 1),
        (3, 1),
        (2, 2),  # of four at the first step two are among the best; at the second one of two is, trial 1
        (4, 2),
        (5, 1),
        (0, 4),  # the reference, at last
        (4, 4),  # with it, four have come to the second step, and two are among the best
    ]


def test_without_a_comparison_the_first_trial_is_one_like_the_others() -> None:
    study, steering = steered(3, halving(), reference_epochs=None)
    assert trained(study, steering, [0.2, 0.9, 0.5]) == [(0, 1), (1, 4), (2, 1)]


def test_a_reference_that_would_take_more_than_a_tenth_of_the_search_is_left_where_it_stopped() -> None:
    study, steering = steered(6, halving(), reference_epochs=EPOCHS)
    assert trained(study, steering, [0.2, 0.9, 0.5, 0.1, 0.8, 0.3])[-1] == (5, 1)
    assert ends_reference(epochs=12, trained=2, of_search=100)
    assert not ends_reference(epochs=12, trained=2, of_search=99)


class Impatient:
    """A rule that stops every trial after two epochs, and never goes on with one."""

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        return epoch == 2


def test_the_reference_is_trained_on_at_last_under_a_rule_that_never_goes_on_with_a_trial() -> None:
    qualities = [0.3, 0.9, 0.5]
    assert trained(*steered(3, Impatient()), qualities) == [(0, 2), (1, 2), (2, 2), (0, 4)]
    assert trained(*steered(3, Impatient(), reference_epochs=None), qualities) == [(0, 2), (1, 2), (2, 2)]


class Faulty(Impatient):
    """A rule whose choice of a trial to go on with fails."""

    def goes_on(self, stopped: list[int]) -> int:
        return 1 // (len(stopped) - 1)


def test_a_fault_in_a_users_own_rule_is_told_as_its_fault() -> None:
    study, _ = steered(3, Faulty())
    steering = Steering(study, Searched.alike(SPACE), Faulty(), 3, reference_epochs=2, rule_name="mine.py:Faulty")
    with pytest.raises(ConfigError, match=r"^pruning 'mine.py:Faulty' failed with ZeroDivisionError"):
        trained(study, steering, [0.3, 0.9, 0.5])


def test_an_unfinished_trial_comes_first_and_one_whose_worker_died_after_it() -> None:
    study, steering = steered(3, halving())
    with quiet_optuna():
        first, second = steering.next_trial(), steering.next_trial()
    assert first is not None and second is not None
    again = Steering(study, Searched.alike(SPACE), halving(), 3, reference_epochs=2)
    assert again.has_new
    with quiet_optuna():
        assert [again.next_trial().number for _ in range(2)] == [0, 1]  # type: ignore[union-attr]
        again.try_again(0)
        assert [again.next_trial().number for _ in range(2)] == [0, 2]  # type: ignore[union-attr]
        assert again.next_trial() is None and not again.has_new


@pytest.mark.parametrize("stretches", range(1, 8))
def test_a_search_that_is_gone_on_with_chooses_the_same(stretches: int) -> None:
    qualities = [0.2, 0.9, 0.5, 0.1, 0.8, 0.3]
    whole = trained(*steered(6, halving()), qualities)
    study, steering = steered(6, halving())
    before = trained(study, steering, qualities, most=stretches)
    rule = halving()
    for trial in study.trials:
        for epoch, value in trial.intermediate_values.items():
            rule.judge(trial.number, epoch, value, 1.0)
    again = Steering(study, Searched.alike(SPACE), rule, 6, reference_epochs=2)
    assert before + trained(study, again, qualities) == whole


def test_a_search_of_one_trial_trains_it_to_its_end() -> None:
    assert trained(*steered(1, halving(), reference_epochs=EPOCHS), [0.5]) == [(0, 1), (0, EPOCHS)]


def test_a_winner_that_was_stopped_is_trained_to_its_end() -> None:
    study, steering = steered(2, Falling(), reference_epochs=None)
    assert trained(study, steering, [0.9, 0.5]) == [(0, 1), (1, 2), (0, EPOCHS)]


class Falling(SuccessiveHalving):
    """Halving that stops trial 0 after one epoch and trial 1 after two, whatever they are worth."""

    def __init__(self) -> None:
        super().__init__(EPOCHS, 1, 2.0)

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        super().judge(number, epoch, value, loss)
        return epoch == 1 + number

    def goes_on(self, stopped: Collection[int]) -> int | None:
        return None
