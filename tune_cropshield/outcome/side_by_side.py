"""Searches side by side: what differs in their settings, what each found, and whether their winners differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from tune_cropshield.config.goals import VAL_ACC, Goal
from tune_cropshield.config.searchable import OWNED_BY_SEARCH
from tune_cropshield.config.space import SETTINGS
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.data.split import VAL
from tune_cropshield.data.split_file import find_split, read_split
from tune_cropshield.errors import UserError
from tune_cropshield.outcome import words
from tune_cropshield.outcome.evaluation import read_record
from tune_cropshield.outcome.lead import CHANCE
from tune_cropshield.outcome.ledger import spent_s
from tune_cropshield.outcome.overview import Overview
from tune_cropshield.outcome.settings_in_words import in_words
from tune_cropshield.outcome.shares import interval, on_same_photographs
from tune_cropshield.outcome.trained import BEST, read_config
from tune_cropshield.search.final import delivered, final_trainings
from tune_cropshield.search.folder import reached, trial_folder
from tune_cropshield.search.journal import JOURNAL, best_first, read_study, started, study_goal
from tune_cropshield.training.clock import read_times
from tune_cropshield.training.predictions import PREDICTIONS, Judged, read_judged
from tune_cropshield.training.run_folder import (
    PART,
    PART_ENDED,
    best_epoch,
    best_so_far,
    network_folder,
    read_digest,
    read_metrics,
)

MOST_PAIRED = 4  # searches that are held against each other, each against each; of more, each against the best


@dataclass(frozen=True)
class Side:
    """One of the searches that are compared.

    Attributes:
        name: what it is called.
        overview: how it stands, in a few facts.
        settings: {name: value or range, in words}, everything that was set.
        best_trial: whose setting the result has; None before the first result, and where no trial was searched.
        final: whether the result is the final training.
        best_setting: {name: value, in words} of the result.
        goal: what it went by.
        value: the goal's, of the result.
        val_acc: of the result.
        interval: Wilson's 95 % interval of it; None where it is a mean over parts, or its photographs are not known.
        spread: what follows the value of a trial in parts; "" for one that is one training.
        judged: the validation photographs, by content, with what the result's network takes them for; or why they are
            not known, a sentence.
        test_acc: on the test photographs; None where it was not looked at.
        epochs: that all trials and final trainings have trained.
        seconds: that all starts have taken.
        curve: {epochs trained: the best value by then}, where it gets better, and at its end.
    """

    name: str
    overview: Overview
    settings: dict[str, str] = field(repr=False)
    best_trial: int | None
    final: bool
    best_setting: dict[str, str]
    goal: Goal
    value: float | None
    val_acc: float | None
    interval: tuple[float, float] | None
    spread: str
    judged: list[Judged] | str = field(repr=False)
    test_acc: float | None
    epochs: int
    seconds: float
    curve: dict[int, float] = field(repr=False)


def read_side(folder: Path, name: str, about: Overview) -> Side:
    """Returns what a search has found so far. Raises UserError where it is damaged."""
    settings = in_words(read_toml(folder / SETTINGS))
    if not (folder / JOURNAL).exists():
        nothing = "no trial has begun"
        return Side(name, about, settings, None, False, {}, VAL_ACC, None, None, None, "", nothing, None, 0, 0.0, {})
    study = read_study(folder)
    goal = study_goal(study)
    final, ranked = delivered(folder, study), best_first(study)
    run_dirs = [trial_folder(folder, trial.number) for trial in started(study)]
    all_runs = [*run_dirs, *(training.folder for training in final_trainings(folder))]
    epochs = sum(len(read_metrics(run_dir)) for run_dir in all_runs)
    of_worth = [trial_folder(folder, trial.number) for trial in ranked] + all_runs[len(run_dirs) :]
    common: dict[str, Any] = {
        "name": name,
        "goal": goal,
        "overview": about,
        "settings": settings,
        "epochs": epochs,
        "seconds": spent_s(folder)[0],
        "curve": _curve(of_worth, goal),
    }
    if final is not None:
        run_dir, number, value = final.folder, final.trial, final.value
    elif ranked:
        run_dir, number, value = trial_folder(folder, ranked[0].number), ranked[0].number, reached(folder, ranked[0])
    else:
        return Side(
            best_trial=None,
            final=False,
            best_setting={},
            value=None,
            val_acc=None,
            interval=None,
            spread="",
            judged="no trial has a result yet",
            test_acc=None,
            **common,
        )
    lines = read_metrics(run_dir)
    spread = words.over_parts(lines)
    best = best_epoch(lines)
    val_acc = float(best["val_acc"]) if best is not None else value if goal.is_accuracy else None
    parameters = study.get_trials(deepcopy=False)[number].params if number is not None else {}
    network = network_folder(run_dir)
    rows = read_judged(network / PREDICTIONS) or []
    judged = _by_content(network, rows)
    count = len(rows) or sum(row.side == VAL for row in read_split(folder) or [])
    return Side(
        best_trial=number,
        final=final is not None,
        best_setting=_setting(run_dir, parameters),
        value=value,
        val_acc=val_acc,
        interval=interval(round(val_acc * count), count) if count and not spread and val_acc is not None else None,
        spread=spread,
        judged=judged,
        test_acc=_on_test(folder, network),
        **common,
    )


def _setting(run_dir: Path, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Returns all settings of a result but those that the search owns; where they are not known, what was searched."""
    try:
        config = read_config(run_dir)
    except UserError:
        return {name: words.setting(value) for name, value in parameters.items()}
    trial = config.trial.model_dump()
    found = {name: words.setting(value) for name, value in trial.items() if name not in OWNED_BY_SEARCH}
    return {**found, "effective_batch": str(config.trial.effective_batch), "fit": config.data.fit}


def _on_test(folder: Path, network: Path) -> float | None:
    digest = read_digest(network)
    records = [read_record(place, "test") for place in (folder / BEST, network)]
    found = next((each for each in records if each and digest and each.get("weights_sha256") == digest), None)
    return float(found["accuracy"]) if found is not None else None


def _by_content(network: Path, rows: Sequence[Judged]) -> list[Judged] | str:
    """Returns what a network says of each validation photograph, named by its content, or why that is not known."""
    split = find_split(network)
    if not rows:
        return f"{PREDICTIONS} of its result is not there"
    if split is None:
        return "it keeps no split.csv, by which photographs are known"
    digest_of, met = {row.photograph: row.digest for row in split}, Counter[str]()
    named = []
    for row in sorted(rows, key=lambda row: row.photograph):
        if row.photograph not in digest_of:
            return f"its split.csv does not know {row.photograph}"
        content = f"{digest_of[row.photograph]} {row.true_class}"
        met[content] += 1  # identical copies
        named.append(replace(row, photograph=f"{content} {met[content]}"))
    return named


def _curve(run_dirs: Sequence[Path], goal: Goal) -> dict[int, float]:
    """Returns {epochs trained: the goal's best value so far}, epochs in the order in which they ended.

    Of trials in parts the ends of parts count. Epochs of versions that kept no times come first.
    """
    epochs = []
    for run_dir in run_dirs:
        lines = read_metrics(run_dir)
        worth = best_so_far(lines)
        ends = [float(line["ended"]) for line in read_times(run_dir) if line["what"] == "epoch"]
        ends = ends[-len(lines) :] if len(ends) >= len(lines) else [0.0] * len(lines)
        for line, ended in zip(lines, ends, strict=True):
            counts = PART not in line or line.get(PART_ENDED)
            epochs.append((ended, worth[line["epoch"]] if counts else None))
    curve: dict[int, float] = {}
    best = math.nan
    for number, (_, value) in enumerate(sorted(epochs, key=lambda epoch: epoch[0]), 1):
        if value is not None and goal.rank(value) > goal.rank(best):
            best = value
            curve[number] = best
    if curve:
        curve[len(epochs)] = best
    return curve


def differing(columns: Sequence[Mapping[str, str]]) -> tuple[list[tuple[str, ...]], int]:
    """Returns a row (name, value of each column) for what is not the same in all of them, and how much is.

    What a column does not have is a dash.
    """
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [(name, *(column.get(name, "–") for column in columns)) for name in names]
    different = [row for row in rows if len(set(row[1:])) > 1]
    return different, len(rows) - len(different)


def verdicts(sides: Sequence[Side]) -> list[str]:
    """Returns sentences on whether the winners differ by more than chance gives, two searches at a time."""
    pairs = list(combinations(sides, 2))
    if len(sides) > MOST_PAIRED:
        same = len({side.goal for side in sides}) == 1  # values of different metrics do not compare
        rank = sides[0].goal.rank if same else VAL_ACC.rank
        best = max(sides, key=lambda side: rank(_number(side.value if same else side.val_acc)))
        pairs = [(best, side) for side in sides if side is not best]
    told = [_verdict(first, second) for first, second in pairs]
    if sum(side.val_acc is not None for side in sides) > 1:
        told.append(
            "each winner was chosen by its validation photographs, as the best of its trials, so every val_acc is "
            "probably too high, and more so with more trials; evaluate --split test uses photographs that no trial has "
            "seen"
        )
    return told


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _verdict(first: Side, second: Side) -> str:
    names = f"{first.name} and {second.name}"
    for side in (first, second):
        if isinstance(side.judged, str):
            return f"{names}: whether their winners differ cannot be said: of {side.name}, {side.judged}"
    assert isinstance(first.judged, list) and isinstance(second.judged, list)
    found = on_same_photographs(first.judged, second.judged)
    if found is None:
        shared = {row.photograph for row in first.judged} & {row.photograph for row in second.judged}
        return (
            f"{names}: whether their winners differ cannot be said, as they were validated on different photographs "
            f"({len(first.judged)} and {len(second.judged)}, {len(shared)} of them the same)"
        )
    parts = " (the networks of their best parts)" if first.spread or second.spread else ""
    worth = "could be chance" if found.p_value >= CHANCE else "is larger than chance would give"
    return (
        f"{names}{parts}, on the same {words.counted(found.count, 'validation photograph')}: "
        f"{found.only_first} only {first.name} gets right, {found.only_second} only {second.name}; the difference "
        f"{worth} ({words.p_equals(found.p_value)}, McNemar's exact test)"
    )
