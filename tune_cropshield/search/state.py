"""How a search stands: whether it runs is told by its lock, how it ended by what it wrote last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from tune_cropshield.search.endings import FAILED, FINISHED, RUNNING
from tune_cropshield.search.final import final_trainings
from tune_cropshield.search.folder import is_running
from tune_cropshield.search.journal import num_started, started, unfinished
from tune_cropshield.search.launches import read_starts
from tune_cropshield.training.run_folder import write_json

if TYPE_CHECKING:
    import optuna

END = "end.json"  # in a search's folder: how its last start ended
INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class State:
    """How a search stands.

    Attributes:
        name: "running", "finished", "interrupted" or "failed".
        why: why it ended early, a sentence; "" where it did not, or that is not known.
    """

    name: str
    why: str = ""


def write_end(folder: Path, state: State) -> None:
    """Writes how a start of a search ended. It is the last thing that a search writes; one that is killed does not."""
    write_json(folder / END, {"state": state.name, "why": state.why, "start": len(read_starts(folder))})


def state_of(folder: Path, study: optuna.Study, settings: Mapping[str, Any]) -> State:
    """Returns how the search in `folder` stands. No file is touched.

    A search of a version that wrote no end.json is judged by what is left to do.

    Args:
        settings: the table [search] of its search.toml.
    """
    end, starts = _read_end(folder), read_starts(folder)
    if end is not None and end.get("start") == len(starts):
        # A lock that is held is another command's, such as confirm's.
        return State(str(end.get("state")), str(end.get("why") or ""))
    if is_running(folder):
        return State(RUNNING)
    if end is not None or any("set" in start for start in starts):  # who writes "set" writes an end, too
        return State(INTERRUPTED, "its last start did not come to its end")
    return _by_what_is_left(folder, study, settings)


def is_under_way(folder: Path, study: optuna.Study) -> bool:
    """Tells whether the search in `folder` runs now. No file is touched."""
    return state_of(folder, study, {}).name == RUNNING


def _read_end(folder: Path) -> dict[str, Any] | None:
    try:
        end = json.loads((folder / END).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return end if isinstance(end, dict) else None


def _by_what_is_left(folder: Path, study: optuna.Study, settings: Mapping[str, Any]) -> State:
    finals = final_trainings(folder)
    if finals and finals[-1].outcome is None:
        return State(INTERRUPTED)
    trials = started(study)
    may_end_early = bool(settings.get("time_budget")) or bool(settings.get("stop_when_flat"))
    if finals and may_end_early:
        return State(FINISHED)
    if any(trial.state == TrialState.RUNNING for trial in trials) or not trials:
        return State(INTERRUPTED)
    if len(trials) < settings.get("trials", 0) and not may_end_early:
        return State(INTERRUPTED)
    return State(FAILED if all(trial.state == TrialState.FAIL for trial in trials) else FINISHED)


def num_ended(study: optuna.Study) -> int:
    """Returns how many trials are not under way: those that a pruning step has stopped count as ended."""
    return num_started(study) - len(unfinished(study))
