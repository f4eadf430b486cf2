"""What happens when a trial has ended, after the study was told of it."""

from __future__ import annotations

from tune_cropshield.errors import DiskFull
from tune_cropshield.search import folder as files
from tune_cropshield.search.context import Search
from tune_cropshield.search.endings import REASON, RETIRED, STOPPED_BY_HAND
from tune_cropshield.search.flat import end_if_flat
from tune_cropshield.search.journal import is_stopped
from tune_cropshield.search.trial_settings import family_of
from tune_cropshield.training.run_folder import read_events


def after_trial(search: Search, number: int, outcome: str | None, reason: str | None) -> None:
    """Records everywhere but in the study that trial `number` has ended, and tidies up after it.

    Raises nothing: Ray would take an error for the trial's failure, and train it again. A full disk ends the search.

    Args:
        outcome: one of `endings`' outcomes; None where the trial was only interrupted, and a resumed search goes on
            with it.
        reason: a sentence on why it ended so, where there is one.
    """
    if outcome is not None:
        if is_stopped(search.study.get_trials(deepcopy=False)[number]):
            search.hparams.trial_stopped(number)
        else:
            search.hparams.trial_ended(number, outcome, reason)
        end_if_flat(search)
    if reason == STOPPED_BY_HAND and number == search.view.trained_at_last:
        search.view.trained_at_last = None
    if number in search.view.running:
        search.view.trial_ended(number, outcome or "stopped", reason)
    try:
        _learn_from_events(search, number)
        files.drop_losers(search.folder, search.study)
        if (fault := files.equal_weights(search.folder, search.study, number)) is not None:
            search.early_end.fail(fault)
        files.write_table(search.folder, search.study)
    except DiskFull as error:
        search.early_end.stop_for_space(error)
    except (OSError, ValueError) as error:  # a table that is open in another program, say
        search.view.note(f"after t{number:03d}: {error}")


def _learn_from_events(search: Search, number: int) -> None:
    """Remembers which micro-batches ran out of memory in the trial, and says when its worker was replaced."""
    for event in read_events(search.trial_folder(number)):
        if event.get("part") == "training":
            _remember_too_large(search, number, event["before"], event["reason"])
        if event.get("event") == RETIRED:
            search.view.note(f"before t{number:03d}, {event[REASON]}")


def _remember_too_large(search: Search, number: int, micro_batch: int, reason: str) -> None:
    """Lowers what is kept of the measurements of a trial's model: no later plan proposes this micro-batch again."""
    parameters = search.study.get_trials(deepcopy=False)[number].params
    plan, space = search.plan.of(parameters), search.space.narrowed(family_of(parameters, search.space))
    if plan.source != "probe" or search.card is None:
        return
    from tune_cropshield.memory.choose.for_gpu import at_largest_size, gpu_precision
    from tune_cropshield.memory.measure.cache import ProbeCache, identity
    from tune_cropshield.search.trial_settings import most_expensive

    assert plan.share_mib is not None
    trial = at_largest_size(most_expensive(space)[0])  # what the plan was made for
    model = identity(trial, len(search.data.classes), gpu_precision(trial), search.card)
    ProbeCache(search.cache_dir, model).lower(micro_batch, plan.share_mib, reason)
