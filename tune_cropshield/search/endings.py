"""How a trial's end is written into the study.

The order is one that a kill half-way through cannot turn into another end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.goals import Goal

if TYPE_CHECKING:  # half a second to import, and who shows a search needs only the words below
    import optuna
    from optuna.trial import FrozenTrial

# In a result: the goal's best value so far, so that pruning, the sampler and the kept weights agree. Of a trial in
# parts (folds or replicates): the first part's best so far, from that part's end on the mean of the parts that ended.
METRIC = "best_value"
OUTCOME = "outcome"  # user attribute of a trial that has ended: one of the values below
REASON = "reason"  # user attribute: a sentence, for outcomes other than finished and being pruned by a rule
FINISHED, PRUNED, DIVERGED, OUT_OF_MEMORY, FAILED = "finished", "pruned", "diverged", "out of memory", "failed"
RUNNING, UNFINISHED = "running", "unfinished"  # without an end: of a search that runs, or was interrupted
WORKER_DIED = "its worker process died"
STOPPED_BY_HAND = "stopped by hand"  # begins the reason of a trial, and is that of a search, that somebody stopped
RETIRED = "worker retired"  # in a trial's events: the process that was to train it still held memory of the one before
MEMORY_RETRIES = "memory_retries"  # in a result: how often memory ran out and a smaller micro-batch was taken
NOTES = "notes"  # in a result: sentences about what else happened to the trial, each in every result after it
DISK_FULL = "disk_full"  # in a result: a sentence; the trial has not ended, but its search has
MEMORY_CONSTRAINT = "memory"  # Optuna's name for "the trial fits the memory"


def report_epoch(study: optuna.Study, trial: optuna.Trial, epoch: int, value: float) -> None:
    """Writes the goal's best value up to an epoch, over what the journal says of it.

    After a kill a GPU may train the epoch again to another value.

    Optuna's own `report` would keep the first, and the study would believe in a value of which there are no weights.
    """
    from tune_cropshield.search.optuna_private import overwrite_value

    known = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    if epoch not in known:
        trial.report(value, epoch)
    elif known[epoch] != value:
        overwrite_value(trial, epoch, value)


def end_trial(
    study: optuna.Study, trial: optuna.Trial, outcome: str, reason: str | None, best_so_far: dict[int, float]
) -> None:
    """Tells the study that a running trial ended.

    Its epochs, {epoch: best value so far}, are reported where the study knows other values or none.

    The outcome comes first: `complete_endings` finishes from there. Without it, a pruned trial's last epoch, once
    reported, would count as passed.
    """
    from optuna.trial import TrialState

    from tune_cropshield.search.journal import quiet_optuna, study_goal

    if outcome == FINISHED and not (best_so_far and math.isfinite(best_so_far[max(best_so_far)])):
        outcome, reason = FAILED, no_value(study_goal(study))
    trial.set_user_attr(OUTCOME, outcome)
    if reason:
        trial.set_user_attr(REASON, reason)
    with quiet_optuna():
        known = study.get_trials(deepcopy=False)[trial.number]
        for epoch in sorted(best_so_far):
            report_epoch(study, trial, epoch, best_so_far[epoch])
        if MEMORY_CONSTRAINT not in known.constraints:
            did_not_fit = 1.0 if outcome == OUT_OF_MEMORY else 0.0  # to Optuna, what is above 0 breaks the constraint
            trial.set_constraint(MEMORY_CONSTRAINT, did_not_fit)
        if outcome == FINISHED:
            study.tell(trial, best_so_far[max(best_so_far)])
        elif outcome in (PRUNED, DIVERGED, OUT_OF_MEMORY):
            # A trial that diverged before its first epoch has no value: Optuna then takes it as the worst there is, and
            # learns from it.
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, state=TrialState.FAIL)


def stop_trial(study: optuna.Study, trial: optuna.Trial, best_so_far: dict[int, float]) -> None:
    """Tells the study that a pruning step has stopped a trial after the last of its epochs.

    The search may go on with it. That it stopped comes first: else, after a kill, its last epoch would count as passed.
    """
    from tune_cropshield.search.journal import STOPPED_AFTER, quiet_optuna

    trial.set_user_attr(STOPPED_AFTER, max(best_so_far))
    with quiet_optuna():
        for epoch in sorted(best_so_far):
            report_epoch(study, trial, epoch, best_so_far[epoch])


def end_by_hand(study: optuna.Study, trial: optuna.Trial, best_so_far: dict[int, float]) -> tuple[str, str]:
    """Tells the study that somebody has stopped a trial for good, and returns its outcome and the reason.

    It is pruned, with what it had reached. Before its first epoch there is nothing that a sampler could learn from: it
    has failed then, which samplers pass over.
    """
    if best_so_far:
        outcome, reason = PRUNED, STOPPED_BY_HAND
    else:
        outcome, reason = FAILED, f"{STOPPED_BY_HAND} before its first epoch"
    end_trial(study, trial, outcome, reason, best_so_far)
    return outcome, reason


def go_on_with(trial: optuna.Trial) -> None:
    """Tells the study that a trial which was stopped is being trained again."""
    from tune_cropshield.search.journal import STOPPED_AFTER

    trial.set_user_attr(STOPPED_AFTER, None)


def end_stopped(study: optuna.Study) -> list[int]:
    """Tells the study that the trials which were stopped are not continued any more: they are PRUNED.

    Returns their numbers.
    """
    from tune_cropshield.search.journal import quiet_optuna, stopped
    from tune_cropshield.search.optuna_private import reopened

    ended = stopped(study)
    for frozen in ended:
        with quiet_optuna():
            trial = reopened(study, frozen)
        end_trial(study, trial, PRUNED, None, dict(frozen.intermediate_values))
    return [frozen.number for frozen in ended]


def shown_outcome(trial: FrozenTrial) -> str | None:
    """Returns a trial's outcome as it is shown: one that was stopped is pruned, whether it may go on or not.

    None for one that has not ended.
    """
    from tune_cropshield.search.journal import is_stopped

    return PRUNED if is_stopped(trial) else trial.user_attrs.get(OUTCOME)


def outcome_now(trial: FrozenTrial, *, running: bool) -> str:
    """Returns the same; of a trial that has not ended, whether it runs or its search was interrupted.

    running: whether its search is under way.
    """
    return shown_outcome(trial) or (RUNNING if running else UNFINISHED)


def was_stopped_by_hand(trial: FrozenTrial) -> bool:
    """Tells whether somebody has stopped a trial for good."""
    return str(trial.user_attrs.get(REASON, "")).startswith(STOPPED_BY_HAND)


def shown_state(trial: FrozenTrial) -> str:
    """Returns a trial's state in Optuna's words, as it is shown."""
    from tune_cropshield.search.journal import is_stopped

    return "PRUNED" if is_stopped(trial) else str(trial.state.name)


def complete_endings(study: optuna.Study, best_so_far: Callable[[int], dict[int, float]]) -> None:
    """Ends, or stops, the trials whose end an earlier run had begun to write.

    best_so_far: (trial number) -> {epoch: best value so far}.
    """
    from tune_cropshield.search.journal import is_stopped, quiet_optuna, stopped, unfinished
    from tune_cropshield.search.optuna_private import reopened

    for frozen in [*stopped(study), *unfinished(study)]:
        outcome = frozen.user_attrs.get(OUTCOME)
        reached = best_so_far(frozen.number) or dict(frozen.intermediate_values)
        with quiet_optuna():
            trial = reopened(study, frozen)
        if outcome is not None:
            end_trial(study, trial, outcome, frozen.user_attrs.get(REASON), reached)
        elif is_stopped(frozen):
            stop_trial(study, trial, reached)


def no_value(goal: Goal) -> str:
    """Returns why a trial has failed that has come to its end without a value of its goal."""
    return f"it reported no {'accuracy' if goal.is_accuracy else goal.name}"


def outcome_of(result: dict[str, Any], goal: Goal) -> tuple[str | None, str | None]:
    """Returns the outcome that a trial's last result tells, None where it tells none, and the reason.

    To finish without a value is to fail.
    """
    if result.get(OUTCOME) == FINISHED and not has_metric(result):
        return FAILED, no_value(goal)
    return result.get(OUTCOME), result.get(REASON)


def has_metric(result: dict[str, Any]) -> bool:
    """Tells whether a result holds a value of the goal: None and NaN are none."""
    value = result.get(METRIC)
    return isinstance(value, (int, float)) and math.isfinite(value)
