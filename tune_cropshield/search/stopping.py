"""What a search does when somebody asks it to stop, or to stop one of its trials, while it runs."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.errors import DiskFull
from tune_cropshield.search.context import Search
from tune_cropshield.search.endings import STOPPED_BY_HAND, end_by_hand
from tune_cropshield.search.journal import is_stopped, quiet_optuna
from tune_cropshield.search.optuna_private import reopened
from tune_cropshield.search.trial_end import after_trial


def obey_requests(search: Search) -> None:
    """Does what was asked since the last look. Raises nothing: Ray would take an error for its own.

    The whole search ends as after Ctrl-C. A trial that runs stops at the end of its epoch. One that waits to be gone on
    with, since a pruning step or an interruption stopped it, ends at once. Of any other nothing is left to stop.
    """
    for number in search.stop_requests.take():
        if number is None:
            search.early_end.interrupt(STOPPED_BY_HAND)
            continue
        trials = search.study.get_trials(deepcopy=False)
        if number >= len(trials) or trials[number].state != TrialState.RUNNING:
            continue
        if is_stopped(trials[number]) or search.steering.leave_out(number):
            _end_waiting(search, trials[number])
        else:
            search.asked_to_stop.add(number)
            search.view.note(f"t{number:03d} will stop at the end of its epoch, as asked")


def _end_waiting(search: Search, frozen: FrozenTrial) -> None:
    """Ends a trial that is not being trained, and would have been gone on with."""
    counted, number = is_stopped(frozen), frozen.number
    try:
        with quiet_optuna():
            outcome, reason = end_by_hand(
                search.study, reopened(search.study, frozen), dict(frozen.intermediate_values)
            )
    except DiskFull as error:
        search.early_end.stop_for_space(error)
        return
    if counted:  # among those that have ended
        search.view.note(f"t{number:03d} will not be continued: {reason}")
    else:
        search.view.trial_started(search.trial_line(number))
    after_trial(search, number, outcome, reason)
