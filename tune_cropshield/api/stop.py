"""`stop`: asks a search that runs, here or in another process, to end in order, or to stop one of its trials."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tune_cropshield.api.arguments import AnyPath
from tune_cropshield.api.names import search_named
from tune_cropshield.config.units import describe_seconds
from tune_cropshield.errors import UserError
from tune_cropshield.shell import command

WAIT_S = 600.0  # for an epoch's end, or for the search to write its results
ASK_AGAIN_S = 0.2
TRIAL = re.compile(r"t?(\d{1,9})", re.ASCII)


@dataclass(frozen=True)
class StopResult:
    """What came of it.

    folder: the search's. trial: the number of the one that was to stop, None for the whole search. stopped: whether it
    did, and not of itself. said: what happened, a sentence.
    """

    folder: Path
    trial: int | None
    stopped: bool
    said: str


def stop(
    search: AnyPath,
    trial: int | str | None = None,
    *,
    wait_s: float = WAIT_S,
    told: Callable[[str], object] | None = None,
) -> StopResult:
    """Stops a search that is running, in whatever process and by whomever, or one of its trials; waits until it did.

    The search ends in order, as after Ctrl-C: its trials get 10 s to end their epoch, best/ and the report are written,
    and `search --resume` continues it. A trial ends at the end of its epoch and is pruned with what it had reached;
    the search takes the next, and never continues that one, also not when it is resumed.

    Args:
        search: The search's folder, or its name below results/runs.
        trial: Its number, or its name like "t003"; left out, the whole search. It may run, or wait to be continued.
        wait_s: How long to wait, in seconds. What was taken up by then is done later; else it is withdrawn.
        told: Is called with a sentence when the request was made, before the waiting.

    Raises:
        UserError: No search runs in the folder, nothing may be written to it, or the trial has ended already or was
            never begun.
    """
    from tune_cropshield.search.folder import LOCK, holds_search, is_running
    from tune_cropshield.search.stop_requests import StopRequest
    from tune_cropshield.training.run_folder import CONFIG

    folder = search_named(search)
    number = _number_of(trial)
    if not (folder / LOCK).exists() and not holds_search(folder):
        raise UserError(f"{folder} holds no search")
    if not holds_search(folder) and (folder / CONFIG).exists():
        raise UserError(f"{folder} is a training, not a search: it is stopped where it runs (Ctrl-C)")
    for place in (folder, folder / LOCK):
        if place.exists() and not os.access(place, os.W_OK):
            raise UserError(f"{place} must not be written to: only who may write to it can stop what runs there")
    if not is_running(folder):
        raise UserError(f"no search is running in {folder}: there is nothing to stop")
    if number is not None:
        _check_under_way(folder, number)
    is_search = _is_the_search(folder)
    request, deadline = StopRequest(folder, number), time.monotonic() + wait_s
    try:
        request.make()
        if told is not None:
            whole = "the search" if is_search else "confirm, at the end of the epoch"
            what = whole if number is None else f"t{number:03d}, at the end of its epoch"
            told(f"asked {folder} to stop {what}: waiting for it")
        while is_running(folder):
            if number is not None and number not in _under_way(folder):
                return _end_of_trial(folder, number)
            if time.monotonic() >= deadline:
                return StopResult(folder, number, False, _too_late(folder, number, request.is_taken, wait_s))
            request.make()
            time.sleep(ASK_AGAIN_S)
        if number is None:
            end = _end_of_search if is_search else _end_of_confirm
            return StopResult(folder, None, request.is_taken, end(folder, request.is_taken))
        if number not in _under_way(folder):
            return _end_of_trial(folder, number)
        said = f"the search in {folder} has ended, and t{number:03d} had not stopped by then: --resume continues it"
        return StopResult(folder, number, False, said)
    finally:
        request.end()


def _number_of(trial: int | str | None) -> int | None:
    """Returns the number of a trial; raises UserError for what names none."""
    if trial is None:
        return None
    match = TRIAL.fullmatch(str(trial))
    if match is None or isinstance(trial, bool):
        raise UserError(f"TRIAL: must be a number like 3, or a name like t003, but got {trial!r}")
    return int(match[1])


def _under_way(folder: Path) -> set[int]:
    """Returns the trials that run, or wait to be continued."""
    from tune_cropshield.search.journal import read_study, stopped, unfinished

    study = read_study(folder)
    return {trial.number for trial in (*unfinished(study), *stopped(study))}


def _check_under_way(folder: Path, number: int) -> None:
    """Raises UserError where a trial was never begun, or has ended."""
    from tune_cropshield.search.journal import num_started, read_study

    begun = num_started(read_study(folder))
    if number >= begun:
        known = f"the newest is t{begun - 1:03d}" if begun else "it has begun none"
        raise UserError(f"the search in {folder} has no trial {number} yet: {known}")
    if number not in _under_way(folder):
        raise UserError(f"t{number:03d} has ended already: {_how(_row(folder, number))}")


def _row(folder: Path, number: int) -> dict[str, Any]:
    """Returns what trials.csv says of a trial, as it is now."""
    from tune_cropshield.search.folder import trial_rows
    from tune_cropshield.search.journal import read_study

    return next(row for row in trial_rows(folder, read_study(folder)) if row["trial"] == number)


def _how(row: dict[str, Any]) -> str:
    """Returns how a trial has ended, in words like "pruned after 4 epochs (stopped by hand)"."""
    from tune_cropshield.outcome import words

    reason = f" ({row['reason']})" if row["reason"] else ""
    return f"{row['outcome']} after {words.counted(row['epochs'], 'epoch')}{reason}"


def _end_of_trial(folder: Path, number: int) -> StopResult:
    from tune_cropshield.search.endings import STOPPED_BY_HAND

    row = _row(folder, number)
    by_hand = row["reason"].startswith(STOPPED_BY_HAND)
    said = "the search continues without it" if by_hand else "it ended of itself before it could be stopped"
    return StopResult(folder, number, by_hand, f"t{number:03d} {_how(row)}: {said}")


def _is_the_search(folder: Path) -> bool:
    """Tells whether what holds `folder` is its search; else the search has ended, and confirm holds it."""
    from tune_cropshield.search.journal import read_study
    from tune_cropshield.search.state import is_under_way

    try:
        return is_under_way(folder, read_study(folder))
    except UserError:  # it has not begun yet
        return True


def _end_of_confirm(folder: Path, taken: bool) -> str:
    how = "stopped: the same command continues it" if taken else "ended of itself before it could be stopped"
    return f"confirm of {folder} {how}"


def _end_of_search(folder: Path, taken: bool) -> str:
    from tune_cropshield.config.goals import VAL_ACC
    from tune_cropshield.search.journal import best_first, best_value, read_study, study_goal

    how = "stopped" if taken else "ended of itself before it could be stopped"
    try:
        study = read_study(folder)
        ranked, goal = best_first(study), study_goal(study)
    except UserError:  # it had not begun yet
        ranked, goal = [], VAL_ACC
    again = command("search", "--out", folder, "--resume")
    best = f"trial {ranked[0].number}, {goal.named(best_value(ranked[0]))}" if ranked else "no result yet"
    return f"the search in {folder} {how}; best so far: {best}" + (f". To continue:  {again}" if taken else "")


def _too_late(folder: Path, number: int | None, taken: bool, wait_s: float) -> str:
    waited = describe_seconds(wait_s)
    if not taken:
        return (
            f"the search in {folder} has not answered within {waited}: it hangs, or an earlier version runs there, or "
            "another command; the request is withdrawn"
        )
    what = "the search" if number is None else f"t{number:03d}"
    return f"{what} has not come to the end of its epoch within {waited}: it was asked to stop, and will then"
