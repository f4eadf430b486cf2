"""The result of a search in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.config.goals import Goal
from tune_cropshield.config.space import SETTINGS
from tune_cropshield.config.space_file import load_space
from tune_cropshield.data.split import VAL
from tune_cropshield.errors import UserError
from tune_cropshield.outcome import words
from tune_cropshield.outcome.against_reference import against_reference
from tune_cropshield.outcome.lead import lead_of_winner
from tune_cropshield.outcome.one_answer import one_answer_line, pairs_of
from tune_cropshield.outcome.trained import BEST
from tune_cropshield.search.earlier import starts_of_next
from tune_cropshield.search.endings import STOPPED_BY_HAND, outcome_now, shown_outcome, was_stopped_by_hand
from tune_cropshield.search.folder import TABLE, reached, trial_folder
from tune_cropshield.search.journal import best_trial, reference_trial, study_goal
from tune_cropshield.training.predictions import PREDICTIONS, read_judged
from tune_cropshield.training.run_folder import (
    PART,
    best_epoch,
    best_of_parts,
    is_part,
    network_folder,
    read_metrics,
    spread_of_parts,
)


def summary_lines(
    study: optuna.Study,
    search_dir: Path,
    shown_dir: Path,
    reference_name: str = "the reference setting",
    *,
    running: bool = False,
) -> list[str]:
    """Returns the result for a person: how the trials ended, the winner and trial 0, and where the files are.

    Args:
        shown_dir: the search's folder as the user wrote it.
        reference_name: what trial 0 is called: it is only near the reference setting where the space does not hold it.
        running: whether the search is under way.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    if not trials:
        trained = [f"configuration and weights: {shown_dir / BEST}"] if (search_dir / BEST).is_dir() else []
        return ["no trial was started", *trained]
    outcomes = Counter(outcome_now(trial, running=running) for trial in trials)
    lines_of = {trial.number: read_metrics(trial_folder(search_dir, trial.number)) for trial in trials}
    epochs = sum(len(lines) for lines in lines_of.values())
    by_hand = Counter(shown_outcome(trial) for trial in trials if was_stopped_by_hand(trial))
    ended = ", ".join(
        f"{count} {outcome}" + (f" ({by_hand[outcome]} {STOPPED_BY_HAND})" if by_hand[outcome] else "")
        for outcome, count in outcomes.most_common()
    )
    lines = [f"{words.counted(len(trials), 'trial')}: {ended}; {words.counted(epochs, 'epoch')} trained"]
    if not any(trial.intermediate_values for trial in trials):
        return [*lines, "no trial has a result"]
    best, reference = best_trial(study), reference_trial(study)
    goal, of_best = study_goal(study), best_epoch(lines_of[best.number]) or {}
    spread = words.over_parts(lines_of[best.number])
    beside = "" if goal.is_accuracy or not of_best else f", val_acc {words.accuracy(of_best['val_acc'])}"
    told = f"{goal.named(reached(search_dir, best))}{spread}{beside}"
    lines.append(f"best: trial {best.number}, {told} ({_spelled(best.params)})")
    if reference is not None:
        lines += _reference_lines(best, reference, lines_of, reference_name, running)
    if (lead := lead_of_winner(study, search_dir)) is not None:
        lines.append(lead.sentence)
    network = network_folder(trial_folder(search_dir, best.number))
    if (line := one_answer_line(pairs_of(read_judged(network / PREDICTIONS) or []), VAL)) is not None:
        lines.append(line)
    if is_part(network):
        own = max(best_of_parts(lines_of[best.number]), key=goal.rank_of)
        lines.append(
            f"the network in {BEST} is that of its best part, {network.name}: {words.named_values(goal, own)} there"
        )
    lines.append(f"best configuration and weights: {shown_dir / BEST}    all trials: {shown_dir / TABLE}")
    if next_time := _next_starts(study, search_dir):
        lines.append(f"the next search of this network tries first: {'; then '.join(map(_spelled, next_time[:2]))}")
    return lines


def _reference_lines(
    best: FrozenTrial,
    reference: FrozenTrial,
    lines_of: Mapping[int, Sequence[dict[str, Any]]],
    name: str,
    running: bool,
) -> list[str]:
    """Returns a sentence on what the winner gains on the reference setting, none where that has no result."""
    outcome, own = shown_outcome(reference), lines_of[reference.number]
    found = against_reference(lines_of[best.number], own, outcome)
    if found is None:
        return []
    state, goal = outcome_now(reference, running=running), found.goal
    told = f"{name} (trial {reference.number}, {state} after {words.counted(len(own), 'epoch')})"
    told += f": {goal.named(found.reference)}{words.over_parts(own)}; "
    if best.number == reference.number:
        return [told + "it is the winner"]
    gain = words.better_by(goal, found.gain)
    if found.epoch is None:
        return [f"{told}the winner is {gain} better"]
    more = "more" if goal.higher_is_better else "less"
    return [f"{told}after as many epochs the winner had {goal.text(found.winner)}, {gain} {more}"]


def summary_facts(study: optuna.Study, search_dir: Path) -> dict[str, Any]:
    """Returns the result for a program: counts of the trials by their end, the winner and trial 0.

    "metric" is there where the search goes by another than val_acc. "best" and "reference" (trial 0) are None where
    there is no result, or no reference setting was tried.
    "runner_up" says what the winner's lead is worth, see `Lead.as_dict`; None where there is nothing to compare. "next"
    are the settings that the next search of the network tries first.
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    worked = any(trial.intermediate_values and trial.state != TrialState.FAIL for trial in trials)
    reference = reference_trial(study)
    if reference is not None and not reference.intermediate_values:
        reference = None
    lead, goal = lead_of_winner(study, search_dir), study_goal(study)
    return {
        "dir": str(search_dir),
        "trials": len(trials),
        "outcomes": dict(Counter(outcome_now(trial, running=False) for trial in trials)),
        **({} if goal.is_accuracy else {"metric": goal.name}),
        "best": _facts(search_dir, best_trial(study), goal) if worked else None,
        "reference": _facts(search_dir, reference, goal) if reference is not None else None,
        "runner_up": lead.as_dict() if lead is not None else None,
        "next": _next_starts(study, search_dir),
    }


def _next_starts(study: optuna.Study, search_dir: Path) -> list[dict[str, Any]]:
    try:
        return starts_of_next(study, load_space(search_dir / SETTINGS))
    except UserError:  # settings of another version
        return []


def _spelled(setting: dict[str, Any]) -> str:
    return ", ".join(f"{name} {words.setting(value)}" for name, value in setting.items())


def _facts(search_dir: Path, trial: FrozenTrial, goal: Goal) -> dict[str, Any]:
    lines = read_metrics(trial_folder(search_dir, trial.number))
    known = {"best_val_acc": (best_epoch(lines) or {}).get("val_acc"), f"best_{goal.name}": reached(search_dir, trial)}
    facts = {"trial": trial.number, **known, "parameters": trial.params}
    if not lines or PART not in lines[0]:
        return facts
    return {**facts, "parts": len(best_of_parts(lines)), f"{goal.name}_std": spread_of_parts(lines)}
