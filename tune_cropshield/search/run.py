"""A whole search: from the first trial, or from where it stopped, to the last."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tune_cropshield.config.reference import REFERENCE
from tune_cropshield.config.units import MIB, twice
from tune_cropshield.files import sync_names
from tune_cropshield.search import folder as files
from tune_cropshield.search.context import Search
from tune_cropshield.search.early_end import BUDGET_USED_UP
from tune_cropshield.search.endings import FAILED, PRUNED, REASON, end_stopped, shown_outcome
from tune_cropshield.search.flat import end_if_flat
from tune_cropshield.search.journal import best_value, is_stopped, num_started, quiet_optuna, stopped, unfinished
from tune_cropshield.search.ray_runtime import RayRuntime, ray_runtime
from tune_cropshield.search.stopping import obey_requests
from tune_cropshield.search.views.view import TrialLine
from tune_cropshield.signals import on_ending_signal

LOGS = "logs"  # in a search's folder: what its processes logged
WORKER_DEATHS = 3  # a trial whose process died so often is given up


@dataclass(frozen=True)
class SearchOutcome:
    """How a search ended.

    Attributes:
        study: all trials.
        stopped: why it ended early, a sentence, or None.
        go_on_with: the flags that --resume needs to go on all the same.
        interrupted: by Ctrl-C, SIGTERM or the hang-up of its terminal.
        failed: it was of no use, since no trial worked.
    """

    study: optuna.Study
    stopped: str | None
    interrupted: bool
    failed: bool
    go_on_with: tuple[str, ...] = ()


def trial_worker() -> type[Any]:
    """Returns what Ray runs. Its import comes late: `ray_runtime` first sets what Ray reads when it is imported."""
    from tune_cropshield.search.worker import TrialWorker

    return TrialWorker


def run_search(search: Search, worker: Callable[[], type[Any]] = trial_worker) -> SearchOutcome:
    """Runs a search that `begin_search` began until it has `trials` trials in all, and returns how it ended.

    The journal says what an earlier run has done: nothing finished is repeated, and what was running goes on from its
    checkpoint with its own parameters. Every trial's files are in their folder when this returns. Ray is started only
    where something is left to do; what its processes logged is then in the folder `logs`. Signals are the caller's
    business: see `ended_by_signals`.

    Args:
        worker: returns the class whose instances train the trials; TrialWorker, or one made from it.

    Raises:
        DiskFull: something cannot be written. Everything before it is whole, and the search can be continued.
        RunFailure: Ray does not start.
        UserError: there is no Ray cluster at the address given.
    """
    study, resources = search.study, search.resources
    if search.budget is not None:
        search.early_end.end_at(search.budget.trials_end)
        search.view.trials_end, search.view.ends = search.budget.trials_end, search.budget.ends
        if search.early_end.is_due():
            return SearchOutcome(study, search.early_end.reason, False, False, _flags_to_go_on(search))
    search.view.finishes = search.space.search.finishes
    num_existing, num_unfinished = num_started(study), len(unfinished(study))
    num_trials = max(search.space.search.trials, num_existing)
    if num_trials == num_existing and not num_unfinished and not stopped(study):
        return SearchOutcome(study, stopped=None, interrupted=False, failed=False)

    with ExitStack() as stack:
        with search.view.steps("starting Ray"):
            num_cpus = resources.concurrent_trials * resources.cpus_per_trial
            ray = stack.enter_context(ray_runtime(num_cpus, resources.gpus, search.ray_address))
        search.view.begin(num_trials, num_existing - num_unfinished)
        search.view.pruned_shares = search.space.search.pruned_shares
        search.view.trained_at_last = REFERENCE if search.space.search.baseline else None
        _recall_trials(search)
        end_if_flat(search)
        obey_requests(search)
        if not search.early_end.is_due():  # it may have been interrupted while Ray was starting
            _run_trials(search, ray, worker)
        interrupted = search.early_end.interrupted
    if search.early_end.disk_full is not None:
        raise search.early_end.disk_full
    if search.early_end.reason is None:
        for number in end_stopped(study):
            search.hparams.trial_ended(number, PRUNED)
    files.drop_losers(search.folder, study)
    files.write_table(search.folder, study)
    sync_names(search.folder)
    end = search.early_end
    return SearchOutcome(study, end.reason or end.enough, interrupted, end.failed, _flags_to_go_on(search))


def _flags_to_go_on(search: Search) -> tuple[str, ...]:
    """Returns the flags that --resume needs to go on all the same. Used up time is doubled."""
    end = search.early_end
    if end.reason == BUDGET_USED_UP:
        return ("--time-budget", twice(search.space.search.time_budget))
    return ("--no-stop-when-flat",) if end.reason is None and end.enough is not None else ()


def _recall_trials(search: Search) -> None:
    """Tells the view of the trials of earlier runs, and shows those that have ended in TensorBoard's table.

    A kill may have come before they were written there.
    """
    search.hparams.search_started()
    for trial in search.study.get_trials(deepcopy=False):
        if trial.state == TrialState.WAITING:
            continue
        outcome = shown_outcome(trial) or (FAILED if trial.state.is_finished() else None)
        if outcome is not None and not is_stopped(trial):
            search.hparams.trial_ended(trial.number, outcome, trial.user_attrs.get(REASON))
        values, settings = trial.intermediate_values, search.space.search
        best, epoch = best_value(trial) if values else math.nan, max(values, default=0)
        line = TrialLine(
            trial.number,
            trial.params,
            "",
            settings.trial_epochs,
            parts=settings.num_parts,
            epoch=epoch,
            best_value=best,
        )
        search.view.recall(line, outcome)


def _run_trials(search: Search, ray: RayRuntime, worker: Callable[[], type[Any]]) -> None:
    """Lets Ray Tune run all trials that are left."""
    with ExitStack() as stack:
        stack.callback(ray.keep_logs, search.folder / LOGS)
        ray_results = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="tune_cropshield-", ignore_cleanup_errors=True)
        )
        tuner = _tuner(search, ray, worker, Path(ray_results))
        stack.enter_context(search.view.live())
        stack.enter_context(quiet_optuna())
        tuner.fit()


def _tuner(search: Search, ray: RayRuntime, worker: Callable[[], type[Any]], ray_results: Path) -> Any:
    """Returns Ray Tune's part of the search.

    What it writes into `ray_results` is never read: the journal is the state.
    """
    from ray import tune  # only now: `ray_runtime` has set what Ray reads when it is imported

    from tune_cropshield.search.ray_events import PruningScheduler, SearchCallback, SearchStopper
    from tune_cropshield.search.searcher import StudySearcher

    resources, plan = search.resources, search.plan
    spare_mib = plan.spare_mib(search.space.search.pairs == "all")
    trainable = tune.with_parameters(
        worker(),
        data=search.data,
        device=resources.device,
        memory_mib=plan.share_mib,
        resident_bytes=int(spare_mib * MIB),
    )
    searcher = StudySearcher(search)
    return tune.Tuner(
        tune.with_resources(trainable, {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=PruningScheduler(search, searcher, ray),
            num_samples=-1,  # the searcher says when there are no more
            max_concurrent_trials=resources.concurrent_trials,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: f"t{trial.config['number']:03d}",
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=str(ray_results),
            stop=SearchStopper(search),
            verbose=0,
            progress_reporter=tune.CLIReporter(),  # Ray's own for notebooks clears what was printed before
            # trials keep checkpoints of their own
            checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
            callbacks=[SearchCallback(search, searcher)],
        ),
    )


@contextmanager
def ended_by_signals(search: Search) -> Iterator[None]:
    """Inside, the first Ctrl-C, SIGTERM or hang-up of the terminal lets a search end in order; a second one kills.

    What comes when the trials have ended lets the rest be written, and only a second one kills.
    """

    def end() -> None:
        if search.early_end.interrupted:
            with suppress(RuntimeError):  # what it interrupts may be writing to the terminal itself
                search.view.leave()
            os._exit(130)
        search.early_end.interrupt()

    with on_ending_signal(end):
        yield


def has_result(study: optuna.Study) -> bool:
    """Tells whether any trial has reported a value."""
    trials = study.get_trials(deepcopy=False)
    return any(trial.intermediate_values for trial in trials if trial.state != TrialState.WAITING)
