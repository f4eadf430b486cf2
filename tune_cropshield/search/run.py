"""A whole search: a study, a scheduler, workers; from the first trial or from where it stopped."""

from __future__ import annotations

import math
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from tune_cropshield.config.settings import DataConfig, RunConfig
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.units import parse_duration
from tune_cropshield.data.dataset import LeafData
from tune_cropshield.errors import DiskFull
from tune_cropshield.files import remove_leftovers, told_when_full
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.search import folder as files
from tune_cropshield.search.endings import FAILED, OUTCOME, REASON, RETIRED, complete_endings
from tune_cropshield.search.journal import check_same, num_started, open_study, quiet_optuna, unfinished
from tune_cropshield.search.resources import Resources
from tune_cropshield.search.sampler import build_sampler
from tune_cropshield.search.start_points import start_points
from tune_cropshield.search.trial_settings import as_begun, distributions, pair_of, settings_mark, trial_config
from tune_cropshield.search.views.view import SearchView, TrialLine
from tune_cropshield.training.run_folder import best_so_far, read_events, read_metrics

FORMAT = "4"  # of trials' settings, checkpoints and metrics: raised when an older search can no longer be gone on with
WORKER_DEATHS = 3  # a trial whose process died so often is given up


def trial_worker() -> type[Any]:
    """Returns what Ray runs. Its import comes late: `ray_runtime` first sets what Ray reads when it is imported."""
    from tune_cropshield.search.worker import TrialWorker

    return TrialWorker


@dataclass(frozen=True)
class SearchOutcome:
    """How a search ended. stopped: why it ended early, or None; interrupted: by Ctrl-C or SIGTERM; failed: no trial
    worked.
    """

    study: optuna.Study
    stopped: str | None
    interrupted: bool
    failed: bool


def run_search(
    space: SearchSpace,
    data: LeafData,
    plan: Plan,
    resources: Resources,
    out: Path,
    view: SearchView,
    too_large: Callable[[int, str], object] = lambda micro_batch, reason: None,
    worker: Callable[[], type[Any]] = trial_worker,
) -> SearchOutcome:
    """Runs `space.search.trials` trials in all in the folder `out`, which must be the caller's alone, and returns how
    it ended.

    The journal in `out` says what an earlier run has done: nothing finished is repeated, what was running goes on from
    its checkpoint with its own parameters, and the halving's rungs are as they were. Every trial's files are in their
    folder when this returns.
    too_large: called with a micro-batch that ran out of memory all the same, and with what was said.
    worker: returns the class whose instances train the trials; TrialWorker, or one made from it. Raises DiskFull when
    something cannot be written; everything before it is whole, and the search can be gone on with.
    """
    settings = space.search
    with told_when_full(out):
        for folder in (out, *out.glob("t[0-9]*")):  # of trials that nobody goes on with, too
            remove_leftovers(folder)
        study = open_study(out)
    check_same(study, {"data": data.store.fingerprint[:16], "format": FORMAT, "settings": settings_mark(space)})
    num_existing = num_started(study)
    study.sampler = build_sampler(settings.sampler, settings.seed, num_existing, settings.trials)
    with quiet_optuna():
        if not num_existing:  # else they are there, however the plan has changed since
            for start in start_points(space, plan):
                study.enqueue_trial(start, skip_if_exists=True)
    complete_endings(study, lambda number: best_so_far(read_metrics(files.trial_folder(out, number))))
    going_on = unfinished(study)
    num_ended = num_existing - len(going_on)
    num_new = max(settings.trials - num_existing, 0)
    if not going_on and not num_new:
        return SearchOutcome(study, None, False, False)
    view.begin(num_existing + num_new, num_ended)
    stopped, interrupted, failed = _tune(space, data, plan, resources, out, view, study, num_new, too_large, worker)
    files.drop_losers(out, study)
    files.write_table(out, study)
    return SearchOutcome(study, stopped, interrupted, failed)


def _tune(
    space: SearchSpace,
    data: LeafData,
    plan: Plan,
    resources: Resources,
    out: Path,
    view: SearchView,
    study: optuna.Study,
    num_new: int,
    too_large: Callable[[int, str], object],
    worker: Callable[[], type[Any]],
) -> tuple[str | None, bool, bool]:
    from ray import tune  # only now: `ray_runtime` has set what Ray reads when it is imported

    from tune_cropshield.search.callbacks import BoardCallback, ViewCallback
    from tune_cropshield.search.halving import Halving
    from tune_cropshield.search.hparams import Board
    from tune_cropshield.search.searcher import StudySearcher
    from tune_cropshield.search.stopper import SearchStopper

    settings = space.search
    halving = Halving(settings.epochs, settings.grace_epochs, settings.reduction_factor)
    for trial in study.get_trials(deepcopy=False):
        halving.replay(str(trial.number), trial.intermediate_values)

    board = Board(out, space, plan)
    board.begin()

    def make_config(number: int, parameters: dict[str, Any]) -> dict[str, Any]:
        trial = trial_config(space, parameters, plan, resources)
        run = RunConfig(data=DataConfig(**space.data.model_dump()), trial=trial).model_dump()
        board.trial_started(number, run["trial"])
        return {"number": number, "folder": str(files.trial_folder(out, number)), "run": run}

    def describe(number: int) -> TrialLine:
        parameters = study.get_trials(deepcopy=False)[number].params
        trial = trial_config(space, parameters, plan, resources)
        return TrialLine(
            number, parameters, str(pair_of(parameters, space, plan)), settings.epochs, trial.lr, trial.max_norm
        )

    def trial_over(number: int) -> None:
        try:
            book(number)
        except DiskFull as error:
            stopper.stop_for_space(error)
        except (
            OSError,
            ValueError,
            # a table that is open elsewhere, say: Ray would take it for the trial's failure, and train it again
        ) as error:
            view.note(f"after t{number:03d}: {error}")

    def book(number: int) -> None:
        for step in read_events(files.trial_folder(out, number)):
            if step.get("part") == "training":
                too_large(step["before"], step["reason"])
            if step.get("event") == RETIRED:
                view.note(f"before t{number:03d}, {step[REASON]}")
        files.drop_losers(out, study)
        if (fault := files.equal_weights(out, study, number)) is not None:
            stopper.fail(fault)
        files.write_table(out, study)

    def was_pruned(trial_id: str) -> bool:
        return trial_id in halving.pruned

    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)):
        board.trial_ended(
            trial.number, str(trial.user_attrs.get(OUTCOME, FAILED))
        )  # again: the kill may have come before it was written
        best = max(trial.intermediate_values.values(), default=math.nan)
        view.recall(
            TrialLine(trial.number, trial.params, "", settings.epochs, best_val_acc=best),
            str(trial.user_attrs.get(OUTCOME, FAILED)),
        )

    stopper = SearchStopper(parse_duration(settings.time_budget) if settings.time_budget else None)
    going_on = unfinished(study)
    searcher = StudySearcher(
        study,
        as_begun(distributions(space, plan), study),
        make_config,
        was_pruned,
        lambda trial_id, number: halving.adopt(trial_id, str(number)),
        going_on,
        num_new,
        stopper.stop_for_space,
    )
    with (
        tempfile.TemporaryDirectory(prefix="tune_cropshield-", ignore_cleanup_errors=True) as ray_results,
        _ended_by_signals(stopper, view) as interrupted,
    ):
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    worker(),
                    data=data,
                    device=resources.device,
                    memory_mib=plan.share_mib,
                    resident_bytes=int(plan.spare_mib(settings.pairs == "all") * 2**20),
                ),
                {"cpu": resources.cpus_per_trial, "gpu": resources.gpus_per_trial},
            ),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=halving,
                num_samples=-1,  # the searcher says when there are no more
                max_concurrent_trials=resources.concurrent_trials,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"t{trial.config['number']:03d}",
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=ray_results,
                stop=stopper,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(
                    checkpoint_frequency=0, checkpoint_at_end=False
                ),  # trials keep their own
                failure_config=tune.FailureConfig(max_failures=WORKER_DEATHS),
                callbacks=[
                    BoardCallback(board, was_pruned, searcher.starts_again),
                    ViewCallback(view, describe, was_pruned, searcher.starts_again, trial_over, stopper.trial_ended),
                ],
            ),
        )
        with view.live(), quiet_optuna():
            tuner.fit()
    if stopper.disk_full is not None:
        raise stopper.disk_full
    return stopper.reason, interrupted.is_set(), stopper.failed


@contextmanager
def _ended_by_signals(stopper: Any, view: SearchView) -> Iterator[threading.Event]:
    """Turns the first Ctrl-C or SIGTERM into an orderly end; a second one kills. Yields an event that tells whether
    there was one.
    """
    interrupted = threading.Event()

    def end(number: int, frame: object) -> None:
        if interrupted.is_set():
            view.leave()
            os._exit(130)
        interrupted.set()
        stopper.stop("interrupted")
        view.note(
            "stopping: the trials under way have 10 s to end their epoch, which is else trained again (once "
            "more to stop at once)"
        )

    previous = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def has_result(study: optuna.Study) -> bool:
    """Tells whether any trial has reported an accuracy."""
    return any(
        trial.intermediate_values for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING
    )
