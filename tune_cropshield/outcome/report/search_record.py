"""A search as its folder tells it: what the report is made from. Reads, writes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.config.goals import Goal, goal_of
from tune_cropshield.config.reference import REFERENCE_SETTING
from tune_cropshield.config.searchable import OF_PHOTOGRAPHS
from tune_cropshield.config.settings import RunConfig
from tune_cropshield.config.space import SETTINGS, SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.errors import UserError
from tune_cropshield.memory.choose.pairs import Pair, Plan
from tune_cropshield.outcome.trained import read_config
from tune_cropshield.search.endings import FINISHED, PRUNED, REASON, RUNNING, UNFINISHED, outcome_now
from tune_cropshield.search.final import FinalTraining, delivered, final_trainings
from tune_cropshield.search.folder import trial_folder
from tune_cropshield.search.journal import best_trial, quiet_optuna, read_study, reference_trial, study_goal, unfinished
from tune_cropshield.search.launches import read_starts
from tune_cropshield.search.plan_file import load_plan
from tune_cropshield.search.start_points import name_of_trial_0
from tune_cropshield.training.run_folder import best_epoch, best_of_parts, network_folder, read_events, read_metrics


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    lines: of metrics.jsonl, an epoch each. events: of events.jsonl. config: None where its process died before writing
    it. in_running_search: whether its search is under way.
    """

    frozen: FrozenTrial
    folder: Path
    lines: list[dict[str, Any]]
    events: list[dict[str, Any]]
    config: RunConfig | None
    in_running_search: bool = False

    @property
    def number(self) -> int:
        return self.frozen.number

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.name

    @property
    def outcome(self) -> str:
        """How it ended; "running" while it runs, "unfinished" where its search was interrupted."""
        return outcome_now(self.frozen, running=self.in_running_search)

    @property
    def reason(self) -> str:
        return str(self.frozen.user_attrs.get(REASON, ""))

    @property
    def parameters(self) -> dict[str, Any]:
        return self.frozen.params

    @property
    def best(self) -> dict[str, Any] | None:
        """The metrics of its best epoch; None before the first."""
        return best_epoch(self.lines)

    @property
    def value(self) -> float | None:
        """The goal's best value so far; None before the first epoch."""
        return goal_of(self.lines).value(self.best) if self.best is not None else None

    @property
    def accuracy(self) -> float | None:
        """The accuracy of the best epoch; None before the first."""
        return float(self.best["val_acc"]) if self.best is not None else None

    @property
    def pair(self) -> Pair | None:
        return Pair(*self.config.trial.pair) if self.config is not None else None

    def setting(self, name: str) -> Any:
        """Returns a setting of the trial, searched or not; None where it is not known."""
        if self.config is None:
            return self.parameters.get(name)
        return getattr(self.config.data if name in OF_PHOTOGRAPHS else self.config.trial, name)


@dataclass(frozen=True)
class SearchRecord:
    """A whole search.

    space: None where search.toml is missing or of another version. plan, starts: empty for older searches.
    """

    folder: Path
    study: optuna.Study
    space: SearchSpace | None
    plan: Plan | None
    starts: list[dict[str, Any]]
    trials: list[TrialRecord]
    winner: TrialRecord | None  # None while no trial has a result
    reference: TrialRecord | None  # the trial with the reference setting; None where the search did without
    running: bool = False  # the search, now
    final_trainings: tuple[FinalTraining, ...] = ()
    final: FinalTraining | None = None  # the final training that is the result; None where a trial is

    @property
    def goal(self) -> Goal:
        """What the search goes by."""
        return study_goal(self.study)

    @property
    def reference_name(self) -> str:
        """What trial 0 is called where the winner is compared with it, without "the"."""
        name = name_of_trial_0(self.space) if self.space is not None else REFERENCE_SETTING
        return name.removeprefix("the ")

    @property
    def result_folder(self) -> Path | None:
        """The folder of the network that best/ holds; None while there is no winner."""
        if self.final is not None:
            return self.final.folder
        return network_folder(self.winner.folder) if self.winner is not None else None

    @property
    def network_accuracy(self) -> float | None:
        """The val_acc of that network alone, where a trial's is the mean over its parts; None while there is none."""
        if self.final is not None:
            return _accuracy(self.final.best)
        lines = best_of_parts(self.winner.lines) if self.winner is not None else []
        return _accuracy(max(lines, key=self.goal.rank_of, default=None))

    @property
    def result_accuracy(self) -> float | None:
        """The val_acc of the final training where it is the result, else of the winner; None while there is none."""
        if self.final is not None:
            return _accuracy(self.final.best)
        return self.winner.accuracy if self.winner is not None else None

    @property
    def with_result(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.best is not None]

    @property
    def complete(self) -> list[TrialRecord]:
        """The trials that were trained to their end."""
        return [trial for trial in self.trials if trial.frozen.state == TrialState.COMPLETE]

    @property
    def pruned(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.outcome == PRUNED]

    @property
    def failed(self) -> list[TrialRecord]:
        """The trials that ended in any other way: diverged, out of memory, failed."""
        return [trial for trial in self.trials if trial.outcome not in (FINISHED, PRUNED, UNFINISHED, RUNNING)]

    @property
    def unfinished(self) -> list[TrialRecord]:
        """The trials that run, or ran when the search was interrupted."""
        return [trial for trial in self.trials if trial.outcome in (UNFINISHED, RUNNING)]

    @property
    def parameter_names(self) -> list[str]:
        """What was searched, in the order of the trials' parameters."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.parameters))

    @cached_property
    def study_of_results(self) -> optuna.Study:
        """The study with every trial that has a result as complete, at the best value it reached.

        Optuna's charts leave out pruned trials.
        """
        with quiet_optuna():
            study = optuna.create_study(direction=self.study.direction)
            study.add_trials([_judged(trial) for trial in self.trials])
        return study


def _accuracy(best: Mapping[str, Any] | None) -> float | None:
    return float(best["val_acc"]) if best is not None else None


def _judged(trial: TrialRecord) -> FrozenTrial:
    counts = trial.best is not None and trial.frozen.state != TrialState.FAIL  # a failed trial cannot win
    state, value = (TrialState.COMPLETE, trial.value) if counts else (TrialState.FAIL, None)
    return optuna.trial.create_trial(
        state=state, value=value, params=trial.frozen.params, distributions=trial.frozen.distributions
    )


def read_search(search_dir: Path, *, running: bool = False) -> SearchRecord:
    """Returns the search in `search_dir`, running or not.

    running: whether some process holds its folder.

    Raises UserError when there is none, its journal is damaged, or no trial was started.
    """
    study = read_study(search_dir)
    started = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    if not started:
        raise UserError(f"no trial of the search in {search_dir} was started yet")
    running = running and bool(unfinished(study))  # else confirm holds the folder
    trials = [_read_trial(trial_folder(search_dir, trial.number), trial, running) for trial in started]
    try:
        winner_number = best_trial(study).number
        winner = next((trial for trial in trials if trial.number == winner_number and trial.best is not None), None)
    except UserError:
        winner = None
    try:
        space = load_space(search_dir / SETTINGS)
    except UserError:
        space = None
    plan, starts = load_plan(search_dir), read_starts(search_dir)
    reference = trials[0] if reference_trial(study) is not None else None
    return SearchRecord(
        search_dir,
        study,
        space,
        plan,
        starts,
        trials,
        winner,
        reference,
        running,
        tuple(final_trainings(search_dir)),
        delivered(search_dir, study),
    )


def _read_trial(folder: Path, trial: FrozenTrial, running: bool) -> TrialRecord:
    try:
        config = read_config(folder)
    except UserError:
        config = None
    return TrialRecord(trial, folder, read_metrics(folder), read_events(folder), config, running)
