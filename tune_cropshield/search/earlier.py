"""Earlier searches: which ones a new search learns from, how they are read, and what is kept of them in its folder."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.config.goals import Goal
from tune_cropshield.config.searchable import OF_PHOTOGRAPHS
from tune_cropshield.config.space import SETTINGS, SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.errors import UserError
from tune_cropshield.files import write_text_atomically
from tune_cropshield.memory.choose.pairs import parse_pair
from tune_cropshield.search.endings import (
    DIVERGED,
    FAILED,
    FINISHED,
    OUT_OF_MEMORY,
    OUTCOME,
    REASON,
    STOPPED_BY_HAND,
    WORKER_DIED,
)
from tune_cropshield.search.journal import JOURNAL, PART_EPOCHS, is_stopped, read_study, study_goal
from tune_cropshield.search.knowledge import Knowledge, Past, PastTrial, knowledge_of, starting_settings
from tune_cropshield.search.trial_settings import EFFECTIVE_BATCH, PAIR
from tune_cropshield.search.views.view import short
from tune_cropshield.shell import command

RECORD = "learned_from.json"  # in a search's folder: what it knew when it began
MOST_SEARCHES = 10  # that are found without being named, the newest: reading one takes some 50 ms
Network = tuple[str, bool, bool]  # model, whether it begins with trained weights, whether its backbone is frozen


def learn(
    space: SearchSpace, places: Iterable[Path], named: Sequence[Path] | None = None
) -> tuple[Knowledge, list[str]]:
    """Returns what earlier searches know of a search in `space`, and sentences on what is learnt from which.

    Nothing is written, and searches that are running elsewhere may be read.

    Args:
        places: folders whose sub-folders may be earlier searches; learnt from are those of the same network (trained
            from scratch, fine-tuned or frozen alike), optimizer and metric, the newest first.
        named: these searches are learnt from instead, whatever their network.

    Raises:
        UserError: one that was named is no search, is damaged, or nothing can be learnt from it.
    """
    notes: list[str] = []
    if named is not None:
        pasts = [_named(folder, space) for folder in {folder.resolve(): folder for folder in named}.values()]
    else:
        pasts = []
        for folder in _found(space, places)[:MOST_SEARCHES]:
            try:
                past = read_past(folder, space)
            except (UserError, OSError) as error:
                notes.append(f"{error}: this search learns nothing from it")
                continue
            if _taught(past):
                pasts.append(past)
    knowledge = knowledge_of(pasts, space)
    if knowledge.sources:
        notes.append(_told(knowledge))
    return knowledge, notes


def _told(knowledge: Knowledge) -> str:
    names, count = [_shown(name) for name in knowledge.sources], sum(knowledge.sources.values())
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    first = [f"{name} {short(value)}" for name, value in knowledge.starts[0].items()] if knowledge.starts else []
    tried = f"; tried first: {', '.join(first)}" if first else ""
    return (
        f"learning from {len(names)} earlier search{'es' if len(names) > 1 else ''} "
        f"({', '.join(names[:3])}{more}; {count} trials){tried} (--from-scratch turns this off)"
    )


def _shown(folder: str) -> str:
    """Returns a folder as seen from the working directory, where it lies below."""
    return str(Path(folder).relative_to(Path.cwd())) if Path(folder).is_relative_to(Path.cwd()) else folder


def _found(space: SearchSpace, places: Iterable[Path]) -> list[Path]:
    """Returns the searches in `places` of the same network, optimizer and metric, the newest first."""
    wanted, found = _networks(space), {}
    for place in places:
        for settings in place.glob(f"*/{SETTINGS}"):
            folder = settings.parent
            try:
                other = load_space(settings)
                alike = _networks(other) & wanted and other.search.metric == space.search.metric
                if alike and _optimizers(other) & _optimizers(space):
                    found[folder.resolve()] = ((folder / JOURNAL).stat().st_mtime, folder)
            except (UserError, OSError):  # of another version, with own code that is gone, or without a journal
                continue
    return [folder for _, folder in sorted(found.values(), key=lambda entry: (-entry[0], str(entry[1])))]


def _networks(space: SearchSpace) -> set[Network]:
    """Returns the networks that trials of `space` train, and how they begin."""
    found = set()
    for family in space.families:
        ours = space.narrowed(family)
        trial = ours.trial_config()
        weights = ours.space["pretrained"].ends if "pretrained" in ours.space else (trial.pretrained,)
        found |= {(trial.model, bool(one), trial.freeze_backbone) for one in weights}
    return found


def _optimizers(space: SearchSpace) -> set[Any]:
    searched = {value for domain in space.domains().get("optimizer", ()) for value in domain.ends}
    always = "optimizer" in space.space
    return searched if always else searched | {space.trial_config().optimizer}


def _named(folder: Path, space: SearchSpace) -> Past:
    """Returns the search in `folder`; raises UserError where nothing can be learnt from it."""
    if not (folder / SETTINGS).is_file():
        raise UserError(f"--learn-from {folder}: is not a search folder ({SETTINGS} is missing)")
    other = load_space(folder / SETTINGS)
    searched, now = _searched(other), _searched(space)
    if not searched & now:
        raise UserError(
            f"--learn-from {folder}: has nothing in common with this search: it searched "
            f"{', '.join(sorted(searched)) or 'nothing'}, this one searches {', '.join(sorted(now)) or 'nothing'}"
        )
    if other.search.metric != space.search.metric:
        raise UserError(
            f"--learn-from {folder}: its trials are judged by {other.search.metric}, this search's by "
            f"{space.search.metric}, and what is best by one need not be by the other: leave it out, or give --metric"
        )
    if not _optimizers(other) & _optimizers(space):
        theirs, ours = (", ".join(sorted(map(str, _optimizers(one)))) for one in (other, space))
        raise UserError(
            f"--learn-from {folder}: its optimizer is {theirs}, this search's is {ours}, and learning rates of the "
            "two cannot be compared"
        )
    past = read_past(folder, space)
    if not _taught(past):
        raise UserError(f"--learn-from {folder}: fewer than two of its trials have a result: nothing to learn from")
    return past


def _searched(space: SearchSpace) -> set[str]:
    return set(space.domains()) | ({EFFECTIVE_BATCH} if space.search.pairs == "all" else set())


def _taught(past: Past) -> bool:
    """Tells whether anything can be learnt from it: one trial alone is neither good nor bad."""
    return len(past.trials) > 1 and any(trial.best_so_far for trial in past.trials)


def read_past(folder: Path, space: SearchSpace) -> Past:
    """Returns the search in `folder`, as far as its trials have an optimizer of `space`. No file is touched.

    Left out is what says nothing about a setting: trials that did not fit the memory or whose worker died, and, while
    they are under way, those that are not yet among the better half.

    Raises UserError where there is no search, or it is damaged.
    """
    return _past(str(folder.absolute()), read_study(folder), load_space(folder / SETTINGS), space)


def starts_of_next(study: optuna.Study, space: SearchSpace) -> list[dict[str, Any]]:
    """Returns what a next search in the same `space` would try first for what was found in `study`."""
    return starting_settings([_past("", study, space, space)], space)


def _past(name: str, study: optuna.Study, settings: SearchSpace, space: SearchSpace) -> Past:
    """Returns what a search with these settings found with the optimizers of `space`.

    Where it trained several networks, it is what it found with those of `space`, if any.
    """
    optimizers, networks = _optimizers(space), _networks(settings) & _networks(space)
    if len(_networks(settings)) == 1 or not networks:  # one that was named tells of another network as a whole
        networks = _networks(settings)
    trial = settings.trial_config()
    fixed = trial.model_dump() | {name: getattr(settings.data, name) for name in OF_PHOTOGRAPHS}
    part_epochs, goal = study.user_attrs.get(PART_EPOCHS), study_goal(study)
    read = [(frozen, _past_trial(frozen, part_epochs, goal)) for frozen in study.get_trials(deepcopy=False)]
    read = [
        (frozen, past)
        for frozen, past in read
        if _is_telling(frozen)
        and past.parameters.get("optimizer", trial.optimizer) in optimizers
        and _network_of(settings, past.parameters) in networks
    ]
    ended = [past.worth for frozen, past in read if _has_ended(frozen)]
    kept = [
        past for frozen, past in read if _has_ended(frozen) or (ended and past.worth > statistics.median_low(ended))
    ]
    return Past(name, tuple(kept), fixed)


def _network_of(space: SearchSpace, parameters: dict[str, Any]) -> Network:
    trial = space.trial_config()
    model, weights, frozen = (
        parameters.get(name, getattr(trial, name)) for name in ("model", "pretrained", "freeze_backbone")
    )
    return model, bool(weights), frozen


def _has_ended(frozen: FrozenTrial) -> bool:
    """Tells whether a trial is not under way: one that was stopped counts as pruned, though it may be continued."""
    return frozen.state.is_finished() or is_stopped(frozen)


def _is_telling(frozen: FrozenTrial) -> bool:
    outcome, reason = frozen.user_attrs.get(OUTCOME), str(frozen.user_attrs.get(REASON, ""))
    lost = outcome == OUT_OF_MEMORY or (outcome == FAILED and reason.startswith((WORKER_DIED, STOPPED_BY_HAND)))
    return frozen.state != TrialState.WAITING and not lost and bool(frozen.params)


def _past_trial(frozen: FrozenTrial, part_epochs: int | None, goal: Goal) -> PastTrial:
    """part_epochs: the epochs of a part, where trials are in parts."""
    outcome = frozen.user_attrs.get(OUTCOME)
    return PastTrial(
        parameters=in_settings_terms(frozen.params),
        best_so_far={epoch: goal.rank(value) for epoch, value in frozen.intermediate_values.items()},
        finished=outcome == FINISHED,
        failed=outcome in (FAILED, DIVERGED) or frozen.state == TrialState.FAIL,
        parts=max(frozen.intermediate_values, default=0) // part_epochs if part_epochs is not None else 0,
    )


def in_settings_terms(parameters: dict[str, Any]) -> dict[str, Any]:
    """Returns a trial's parameters as a settings file has them: a pair as its effective batch."""
    if PAIR not in parameters:
        return dict(parameters)
    rest = {name: value for name, value in parameters.items() if name != PAIR}
    return {**rest, EFFECTIVE_BATCH: parse_pair(parameters[PAIR]).effective_batch}


def save_knowledge(folder: Path, knowledge: Knowledge) -> None:
    """Keeps what a search begins with in its folder, where it learnt anything."""
    if knowledge.sources:
        facts = {"sources": knowledge.sources, "starts": knowledge.starts, "trials": knowledge.rows}
        write_text_atomically(folder / RECORD, json.dumps(facts, indent=1) + "\n")


def read_knowledge(folder: Path) -> Knowledge:
    """Returns what the search in `folder` began with; nothing where it learnt from none.

    Raises UserError where the record is damaged.
    """
    path = folder / RECORD
    if not path.exists():
        return Knowledge()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple((dict(setting), float(quality)) for setting, quality in facts["trials"])
        return Knowledge(dict(facts["sources"]), tuple(map(dict, facts["starts"])), rows)
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it, and the search continues without it") from None


def search_again(settings: Path, knowledge: Knowledge) -> str:
    """Returns the command that repeats a search with the `settings` file, knowing what it knew."""
    knowing = ["--learn-from", *map(Path, knowledge.sources)] if knowledge.sources else ["--from-scratch"]
    return command("search", "--space", settings, *knowing, anywhere=True)
