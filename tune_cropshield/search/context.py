"""One search: what its parts share, and how it is begun or continued."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from tune_cropshield.config.registry import own_code
from tune_cropshield.config.settings import RunConfig, TrialConfig
from tune_cropshield.config.space import SETTINGS, SearchSpace
from tune_cropshield.data.dataset import LeafData
from tune_cropshield.data.left_out import write_left_out
from tune_cropshield.data.split_file import SPLIT_TABLE, write_split
from tune_cropshield.files import raising_disk_full, remove_leftovers
from tune_cropshield.memory.choose.pairs import Plan
from tune_cropshield.search import folder as files
from tune_cropshield.search.earlier import read_knowledge, save_knowledge, search_again
from tune_cropshield.search.early_end import EarlyEnd
from tune_cropshield.search.endings import complete_endings
from tune_cropshield.search.hparams import HParams
from tune_cropshield.search.journal import (
    NO_BASELINE,
    PART_EPOCHS,
    best_value,
    note_goal,
    num_started,
    open_study,
    quiet_optuna,
)
from tune_cropshield.search.knowledge import Knowledge
from tune_cropshield.search.launches import note_start
from tune_cropshield.search.plan_file import save_plan
from tune_cropshield.search.prepare import Prepared
from tune_cropshield.search.proposals import OwnStudySampler
from tune_cropshield.search.pruning import build_pruning
from tune_cropshield.search.resources import Resources
from tune_cropshield.search.same_search import check_journal, check_same
from tune_cropshield.search.samplers import build_sampler
from tune_cropshield.search.searched import searched_in
from tune_cropshield.search.start_points import known_trials, start_points
from tune_cropshield.search.steering import Steering
from tune_cropshield.search.stop_requests import StopRequests
from tune_cropshield.search.time_budget import TimeBudget
from tune_cropshield.search.trial_settings import pair_of, trial_config
from tune_cropshield.search.views.view import SearchView, TrialLine
from tune_cropshield.training.run_folder import best_so_far, has_checkpoint, read_metrics

if TYPE_CHECKING:
    from tune_cropshield.device import Card


@dataclass
class Search:
    """A search that was begun. Knows neither Ray nor the terminal.

    Attributes:
        space, data, plan, resources, card, cache_dir: what is searched, on what; see `Prepared`.
        folder: the search's own, locked by the caller.
        study: every trial and how it ended; written to the journal in `folder`.
        view: shows what happens.
        steering: chooses what is trained next, and which trials stop early; it knows what earlier runs reported.
        early_end: decides whether the whole search ends early.
        hparams: TensorBoard's record of the trials' settings.
        knowledge: what earlier searches know of this one.
        ray_address: a Ray cluster to join, None for a Ray of its own.
        budget: its time, None where it has no end.
        stop_requests: what other processes ask of it.
        pruned: numbers of the trials that were stopped in this run and not continued.
        asked_to_stop: numbers of the trials that somebody wants to stop at the end of their epoch, for good.
    """

    space: SearchSpace
    data: LeafData
    plan: Plan
    resources: Resources
    card: Card | None
    cache_dir: Path
    folder: Path
    study: optuna.Study
    view: SearchView
    steering: Steering
    early_end: EarlyEnd
    hparams: HParams
    stop_requests: StopRequests
    knowledge: Knowledge = field(default_factory=Knowledge)
    ray_address: str | None = None
    budget: TimeBudget | None = None
    pruned: set[int] = field(default_factory=set)
    asked_to_stop: set[int] = field(default_factory=set)

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing.

        Ray Tune pickles its scheduler and its callbacks, which hold this object, into files that are never read, and a
        view of a terminal cannot be pickled.
        """
        return {}

    def trial_folder(self, number: int) -> Path:
        """Returns the folder of a trial."""
        return files.trial_folder(self.folder, number)

    def trial_config(self, parameters: dict[str, Any]) -> TrialConfig:
        """Returns all settings of a trial with these searched parameters."""
        return trial_config(self.space, parameters, self.plan, self.resources)

    def run_config(self, parameters: dict[str, Any]) -> RunConfig:
        """Returns the settings of a trial together with the photographs that it is trained on."""
        return RunConfig(data=self.space.data_config(parameters), trial=self.trial_config(parameters))

    def trial_line(self, number: int) -> TrialLine:
        """Returns what a view shows of a trial that is not being trained: how far it has come."""
        known = self.study.get_trials(deepcopy=False)[number]
        trial, pair = self.trial_config(known.params), pair_of(known.params, self.space, self.plan)
        search = self.space.search
        line = TrialLine(
            number, known.params, str(pair), search.trial_epochs, trial.lr, trial.max_norm, search.num_parts
        )
        if values := known.intermediate_values:
            line.epoch, line.best_value = max(values), best_value(known)
        return line

    def line_at_start(self, number: int) -> TrialLine:
        """Returns what a view shows of a trial whose training begins: without a checkpoint, epochs begin anew.

        Of a trial in parts, those of its part that was under way.
        """
        line = self.trial_line(number)
        if not has_checkpoint(self.trial_folder(number)):
            line.epoch = line.parts_ended * line.epochs // line.parts
        return line


def begin_search(
    prepared: Prepared,
    folder: Path,
    view: SearchView,
    *,
    resume: bool,
    command: Sequence[str],
    ray_address: str | None = None,
    knowledge: Knowledge | None = None,
    budget: TimeBudget | None = None,
) -> Search:
    """Begins a search in `folder`, or goes on with the one that is there, and returns it; `run_search` then runs it.

    Writes search.toml, plan.json, left_out.csv, split.csv and a line of starts.jsonl, and opens the journal. Trials
    whose end an earlier run had begun to write are ended; the pruning rule is told what every trial has reported.

    Args:
        prepared: what `prepare` found.
        folder: exists and is locked by the caller for as long as the search runs.
        resume: a search that is there is continued. It is compared with `prepared` before anything is written.
        command: the command line behind the program's name, for starts.jsonl.
        ray_address: a Ray cluster to join, which shares this machine's folders.
        knowledge: what earlier searches know. A search that is continued knows what it knew when it was begun.
        budget: the search's time; None where it has no end.

    Raises:
        UserError: the search that is there was begun on other photographs or settings, or its journal is damaged.
        DiskFull: something cannot be written.
    """
    space, plan = prepared.space, prepared.plan
    view.goal = space.goal
    pruning = build_pruning(space.search)
    requests = StopRequests(folder)
    requests.forget()
    with raising_disk_full(folder):
        for place in (
            folder,
            *folder.glob("t[0-9]*"),
            *folder.glob("t[0-9]*/part[0-9]*"),
        ):  # of trials that nobody goes on with, too
            remove_leftovers(place)
        if resume:
            check_journal(folder)
            check_same(open_study(folder, goal=space.goal), folder, space, prepared.data.store)
            knowledge = read_knowledge(folder)
        knowledge = knowledge or Knowledge()
        files.save_settings(folder, space, search_again(folder / SETTINGS, knowledge))
        save_knowledge(folder, knowledge)
        save_plan(folder, plan)
        write_left_out(folder, prepared.data.left_out)
        if not (folder / SPLIT_TABLE).exists():
            write_split(folder, prepared.data)
        named = space.data.model_fields_set | space.search.model_fields_set
        note_start(folder, command, prepared.data, prepared.resources, prepared.card, named)
        study = open_study(folder, goal=space.goal)
        check_same(study, folder, space, prepared.data.store)

    if space.search.num_parts > 1 and PART_EPOCHS not in study.user_attrs:
        study.set_user_attr(PART_EPOCHS, space.search.epochs)
    note_goal(study, space.goal)
    if not space.search.baseline and NO_BASELINE not in study.user_attrs:
        study.set_user_attr(NO_BASELINE, True)
    num_existing = num_started(study)
    searched = searched_in(space, plan).begun(study)
    build_sampler(space.search.sampler, space.search.seed, num_existing, space.search.trials)  # faults come first
    sampler_for = partial(build_sampler, space.search.sampler, space.search.seed, num_trials=space.search.trials)
    study.sampler = OwnStudySampler(sampler_for, searched, partial(known_trials, space, plan, knowledge))
    if not num_existing:  # else they are there, however the plan has changed since
        with quiet_optuna():
            for start in start_points(space, plan, knowledge):
                study.enqueue_trial(start, skip_if_exists=True)
    complete_endings(study, lambda number: _values_so_far(files.trial_folder(folder, number)))
    steering = Steering(
        study,
        searched,
        pruning,
        space.search.trials,
        reference_epochs=space.search.trial_epochs if space.search.baseline else None,
        rule_name=space.search.pruning,
    )
    for trial in study.get_trials(deepcopy=False):
        lines = read_metrics(files.trial_folder(folder, trial.number)) if trial.intermediate_values else []
        losses = {line["epoch"]: line["val_loss"] for line in lines}
        for epoch, value in sorted(trial.intermediate_values.items()):
            with own_code("pruning", space.search.pruning):
                steering.judge(trial.number, epoch, value, losses.get(epoch, math.inf))
    return Search(
        space=space,
        data=prepared.data,
        plan=plan,
        resources=prepared.resources,
        card=prepared.card,
        cache_dir=prepared.cache_dir,
        folder=folder,
        study=study,
        view=view,
        steering=steering,
        early_end=EarlyEnd(),
        hparams=HParams(folder, space, plan),
        stop_requests=requests,
        knowledge=knowledge,
        ray_address=ray_address,
        budget=budget,
    )


def _values_so_far(run_dir: Path) -> dict[int, float]:
    """Returns what a trial was worth after each epoch by which it had a finite value."""
    return {epoch: value for epoch, value in best_so_far(read_metrics(run_dir)).items() if math.isfinite(value)}
