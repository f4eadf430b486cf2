"""What a search trains next: what was interrupted, what was stopped too early, something new, and last the reference.

It knows the study and the pruning rule, and nothing of Ray: a replay of recorded trainings is steered by it like a
search.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import optuna
from optuna.trial import FrozenTrial

from tune_cropshield.config.reference import REFERENCE, ends_reference
from tune_cropshield.config.registry import own_code
from tune_cropshield.search.endings import go_on_with
from tune_cropshield.search.journal import best_first, num_started, quiet_optuna, stopped, study_goal, unfinished
from tune_cropshield.search.optuna_private import reopened
from tune_cropshield.search.pruning import PruningRule
from tune_cropshield.search.searched import Searched
from tune_cropshield.search.trial_settings import suggest


class Steering:
    """Chooses the next trial, and says of each that is being trained whether it stops.

    In its order: trials that an earlier run left unfinished; one that the pruning rule stopped and would let go on by
    now; new ones, first those enqueued, then the sampler's; when all have begun, one that was ahead of the winner when
    it was stopped; at last the reference setting, if it was stopped, where that costs little: the gain is measured
    against it, in a short search by the epoch that it has come to.
    """

    def __init__(
        self,
        study: optuna.Study,
        searched: Searched,
        rule: PruningRule,
        num_trials: int,
        *,
        reference_epochs: int | None,
        rule_name: str = "",
    ) -> None:
        """Takes the study, with its sampler and what an earlier run made of it, and how many trials it shall come to.

        reference_epochs: trial 0 is the reference setting, and has so many epochs; None where it is one like others.
        rule_name: what a user calls the rule, for messages where it is their own.
        """
        self._study, self._searched, self._goal = study, searched, study_goal(study)
        self._rule, self._rule_name, self._reference_epochs = rule, rule_name, reference_epochs
        self._unfinished = deque(unfinished(study))
        self._num_new = num_trials - num_started(study)
        self._to_the_end: set[int] = set()

    def judge(self, number: int, epoch: int, value: float, loss: float) -> bool:
        """Returns whether a trial stops at `epoch`, by which its goal has come to `value`; see PruningRule.judge."""
        stops = self._rule.judge(number, epoch, self._goal.rank(value), loss)
        return stops and number not in self._to_the_end

    @property
    def has_new(self) -> bool:
        """Whether trials are left that were never begun, or interrupted."""
        return bool(self._unfinished) or self._num_new > 0

    def begin_no_more(self) -> None:
        """Begins no new trial from now on; what was begun comes to its end."""
        self._num_new = 0

    def try_again(self, number: int) -> None:
        """Lets a trial whose worker died before it ran be the next but the interrupted ones."""
        self._unfinished.append(self._study.get_trials(deepcopy=False)[number])

    def leave_out(self, number: int) -> bool:
        """Takes a trial from those that were interrupted and wait; returns whether it was among them."""
        waiting = deque(trial for trial in self._unfinished if trial.number != number)
        found = len(waiting) < len(self._unfinished)
        self._unfinished = waiting
        return found

    def next_trial(self) -> optuna.Trial | None:
        """Returns the trial to train now, None where there is none; what runs yet may bring others forth."""
        if self._unfinished:
            return self._again(self._unfinished.popleft())
        waiting = {trial.number: trial for trial in stopped(self._study)}
        if (number := self._asked("goes_on", waiting)) is not None:
            return self._further(waiting[number])
        if self._num_new > 0:
            self._num_new -= 1
            with quiet_optuna():
                return self._with_all_parameters(self._study.ask())
        if waiting and (ranked := best_first(self._study)):
            number = self._asked("goes_on_at_the_end", waiting, ranked[0].number)
            if number is not None:
                self._to_the_end.add(number)
                return self._further(waiting[number])
        if REFERENCE in waiting and self._trains_reference(waiting[REFERENCE]):
            self._to_the_end.add(REFERENCE)
            return self._further(waiting[REFERENCE])
        return None

    def _trains_reference(self, reference: FrozenTrial) -> bool:
        """Tells whether the reference setting is trained to its end."""
        if self._reference_epochs is None:
            return False
        trained = sum(max(trial.intermediate_values, default=0) for trial in self._study.get_trials(deepcopy=False))
        return ends_reference(self._reference_epochs, max(reference.intermediate_values), trained)

    def _asked(self, question: str, waiting: Mapping[int, FrozenTrial], *more: int) -> int | None:
        """Returns what the rule answers, None where it never goes on with a trial that it has stopped."""
        method = getattr(self._rule, question, None)
        if method is None or not waiting:
            return None
        with own_code("pruning", self._rule_name):
            number: int | None = method(list(waiting), *more)
        return number

    def _again(self, frozen: FrozenTrial) -> optuna.Trial:
        """Returns an unfinished trial with all its parameters: a kill may have come between two of them."""
        with quiet_optuna():
            return self._with_all_parameters(reopened(self._study, frozen))

    def _with_all_parameters(self, trial: optuna.Trial) -> optuna.Trial:
        """Returns `trial` with a value for each parameter of its branch, which its first ones decide on."""
        while True:
            kept = self._searched.of(trial.params).kept
            name = next((name for name in kept if name not in trial.params), None)
            if name is None:
                return trial
            suggest(trial, name, kept[name])

    def _further(self, frozen: FrozenTrial) -> optuna.Trial:
        """Returns a trial that was stopped, as one that is trained again."""
        with quiet_optuna():
            trial = reopened(self._study, frozen)
            go_on_with(trial)
        return trial
