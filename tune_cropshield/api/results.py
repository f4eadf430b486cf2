"""What a search has found, read from its folder: `open_search`, and what `search` returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tune_cropshield.api.arguments import AnyPath
from tune_cropshield.api.names import search_named
from tune_cropshield.config.goals import Goal
from tune_cropshield.config.settings import RunConfig
from tune_cropshield.config.space import SETTINGS, SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.errors import UserError
from tune_cropshield.outcome.trained import read_config
from tune_cropshield.training.run_folder import best_epoch, read_metrics


@dataclass(frozen=True)
class BestTrial:
    """The trial that is best by the search's metric, or the final training where it is no worse.

    number: None where a starting point was trained without a search. parameters: what was searched. val_acc: of its
    best epoch. config: all its settings; None where they were written by a version whose settings were others. folder:
    holds config.toml, classes.json and model.safetensors, the weights of its best epoch; `evaluate` and `predict` take
    it. metric, value: what the search went by, and what it comes to in that epoch.
    """

    number: int | None
    parameters: dict[str, Any]
    val_acc: float
    config: RunConfig | None = field(repr=False)
    folder: Path
    metric: str = "val_acc"
    value: float = math.nan


@dataclass(frozen=True)
class SearchResults:
    """What a search has found so far.

    folder: the search's. trials: a row per trial, with the columns of trials.csv (trial, state, every parameter,
    epochs, best_epoch, best_val_acc, the best epoch's other metrics, outcome, reason); None stands for what a trial
    does not have. curves: a row per trial and epoch, with `trial` and all metrics. Both are lists of dicts, as
    `pandas.DataFrame` takes them. Of a trial in parts, `epoch` counts on over them and `part` says which it is. best:
    None before the first result. settings: everything that was set, resolved; None where it was written by a version
    whose settings were others.

    How the call of `search` ended, which `open_search` cannot know: stopped says why it ended early, None where it ran
    to its end; interrupted is by Ctrl-C or SIGTERM; failed means that the search was of no use. test_acc: the result's
    accuracy on the test photographs, read once, at the end of a search with a final training.
    """

    folder: Path
    trials: list[dict[str, Any]] = field(repr=False)
    curves: list[dict[str, Any]] = field(repr=False)
    best: BestTrial | None
    settings: SearchSpace | None = field(repr=False)
    stopped: str | None = None
    interrupted: bool = False
    failed: bool = False
    test_acc: float | None = None


def open_search(out: AnyPath) -> SearchResults:
    """Returns what the search in the folder `out` has found so far: running, interrupted or done. No file is touched.

    out: the folder, or its name in results/runs.

    Raises:
        UserError: The folder holds no search, or its journal is damaged.
    """
    return read_results(search_named(out), may_run=True)


def read_results(
    folder: Path,
    *,
    stopped: str | None = None,
    interrupted: bool = False,
    failed: bool = False,
    may_run: bool = False,
) -> SearchResults:
    """Returns the results of the search in `folder`; how it ended is as in `SearchResults`.

    may_run: it may be under way in another process.
    """
    from tune_cropshield.search.final import delivered
    from tune_cropshield.search.folder import trial_folder, trial_rows
    from tune_cropshield.search.journal import best_trial, best_value, read_study, study_goal
    from tune_cropshield.search.state import is_under_way

    study = read_study(folder)
    trials = trial_rows(folder, study, running=may_run and is_under_way(folder, study))
    curves = [
        {"trial": row["trial"], **line} for row in trials for line in read_metrics(trial_folder(folder, row["trial"]))
    ]
    try:
        settings = load_space(folder / SETTINGS)
    except UserError:
        settings = None
    final, rows = delivered(folder, study), study.get_trials(deepcopy=False)
    try:
        if final is not None:
            parameters = dict(rows[final.trial].params) if final.trial is not None else {}
            best: BestTrial | None = _best(final.folder, final.trial, parameters, final.goal, final.value)
            return SearchResults(folder, trials, curves, best, settings, stopped, interrupted, failed)
        winner = best_trial(study)
        run_dir, goal = trial_folder(folder, winner.number), study_goal(study)
        best = _best(run_dir, winner.number, dict(winner.params), goal, best_value(winner))
    except UserError:  # no trial has a result yet
        best = None
    return SearchResults(folder, trials, curves, best, settings, stopped, interrupted, failed)


def _best(folder: Path, number: int | None, parameters: dict[str, Any], goal: Goal, value: float) -> BestTrial:
    try:
        config = read_config(folder)
    except UserError:
        config = None
    best = best_epoch(read_metrics(folder))
    val_acc = value if goal.is_accuracy else float(best["val_acc"]) if best is not None else math.nan
    return BestTrial(number, parameters, val_acc, config, folder, goal.name, value)
