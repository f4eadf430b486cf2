"""Searches and trainings in a folder, each in a few facts. Reads, writes nothing; what is damaged is a row too."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from tune_cropshield.config.goals import Goal, goal_of
from tune_cropshield.config.settings import TrialConfig, stops_early
from tune_cropshield.config.space import SETTINGS
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.errors import UserError
from tune_cropshield.search.endings import FINISHED, RUNNING
from tune_cropshield.search.final import delivered
from tune_cropshield.search.folder import LOCK, holds_search, is_running, reached, trial_folder
from tune_cropshield.search.journal import JOURNAL, best_first, num_started, read_study, study_goal
from tune_cropshield.search.launches import TIME_FORMAT, read_starts
from tune_cropshield.search.state import INTERRUPTED, num_ended, state_of
from tune_cropshield.training.run_folder import CONFIG, METRICS, best_epoch, read_metrics

DEPTH = 6  # folders below the one that is looked through
DAMAGED = "damaged"


@dataclass(frozen=True)
class Overview:
    """A search or a training in a few facts.

    Attributes:
        folder: where it lies.
        kind: "search" or "training" (`train`).
        state: "running", "finished", "interrupted", "failed", or "damaged".
        why: a sentence: why it ended early, or what is wrong with it; "" where there is nothing to say.
        model: the network, or those that are searched; None where it is not known.
        data: the folder of photographs; "" for drawn ones, None where it is not known.
        done, of: a search's trials that have ended, and all that were asked for; a training's epochs.
        best_val_acc: of the best epoch; None before the first.
        metric, best_value: what it goes by, where that is another than val_acc, and its best value; else None.
        begun: with the zone of the machine that it was begun on; None where it is not known.
    """

    folder: Path
    kind: Literal["search", "training"]
    state: str
    why: str = ""
    model: str | None = None
    data: str | None = None
    done: int | None = None
    of: int | None = None
    best_val_acc: float | None = None
    metric: str | None = None
    best_value: float | None = None
    begun: datetime | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values; `begun` as in ISO 8601."""
        begun = self.begun.isoformat() if self.begun is not None else None
        return {**vars(self), "folder": str(self.folder), "begun": begun}


def find_folders(root: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yields the folders of searches and trainings: `root` itself, or those below it, down to `depth` folders.

    What lies in such a folder is its own. Links to folders are followed. A folder that cannot be read is passed over.
    """
    yield from _found(root, depth, set())


def _found(folder: Path, depth: int, seen: set[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in seen:  # a link that leads back
        return
    seen.add(real)
    try:
        if holds_search(folder) or is_training(folder):
            yield folder
            return
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir())
    except OSError:
        return
    if depth:
        for name in names:
            yield from _found(folder / name, depth - 1, seen)


def is_training(folder: Path) -> bool:
    """Tells whether a folder is that of a training, also of a search's trial."""
    return (folder / CONFIG).is_file() and (folder / METRICS).is_file()


def overview(folder: Path) -> Overview:
    """Returns the search or training in `folder` in a few facts. Raises nothing: what is wrong is one of them."""
    kind: Literal["search", "training"] = "search" if holds_search(folder) else "training"
    try:
        return _of_search(folder) if kind == "search" else _of_training(folder)
    except Exception as error:  # whatever a stranger's file makes of a reader
        told = " ".join(str(error).replace(f"{folder}{os.sep}", "").split()) or type(error).__name__
        return Overview(folder, kind, DAMAGED, told, begun=_begun(folder, SETTINGS, JOURNAL, CONFIG))


def _of_search(folder: Path) -> Overview:
    tables = read_toml(folder / SETTINGS)
    if not tables:
        raise UserError(f"{folder / SETTINGS} is empty")
    search, trial, data = (_table(tables, name) for name in ("search", "trial", "data"))
    about: dict[str, Any] = {
        "model": _networks(tables, trial),
        "data": _place(data),
        "begun": _begun(folder, SETTINGS),
    }
    if not (folder / JOURNAL).exists():
        name = RUNNING if is_running(folder) else INTERRUPTED
        return Overview(folder, "search", name, "no trial has begun", done=0, of=search.get("trials"), **about)
    study = read_study(folder)
    state = state_of(folder, study, search)
    final, ranked = delivered(folder, study), best_first(study)
    best: Mapping[str, Any] | None
    value: float | None
    if final is not None:
        best, value = final.best, final.value
    else:
        best = best_epoch(read_metrics(trial_folder(folder, ranked[0].number))) if ranked else None
        value = reached(folder, ranked[0]) if ranked else None
    return Overview(
        folder,
        "search",
        state.name,
        state.why,
        done=num_ended(study),
        of=max(search.get("trials", 0), num_started(study)),
        **_worth(study_goal(study), best, value),
        **about,
    )


def _place(data: Mapping[str, Any]) -> str:
    """Returns where the photographs of [data] come from: a table, a folder, or the folder to train on."""
    return str(next((data[name] for name in ("labels", "dir", "train") if data.get(name)), ""))


def _networks(tables: dict[str, Any], trial: dict[str, Any]) -> str:
    """Returns the network of a search, or those that it chooses from."""
    searched = _table(tables, "space").get("model")
    if isinstance(searched, dict) and isinstance(searched.get("choice"), list):
        return ", ".join(map(str, searched["choice"]))
    return str(trial.get("model", TrialConfig.model_fields["model"].default))


def _of_training(folder: Path) -> Overview:
    tables = read_toml(folder / CONFIG)
    trial, data = _table(tables, "trial"), _table(tables, "data")
    lines = read_metrics(folder)
    best = best_epoch(lines)
    epochs, patience, frozen = trial.get("epochs"), trial.get("early_stopping", 0), trial.get("unfreeze_epochs", 0)
    ended = len(lines) == epochs or (
        best is not None and stops_early(int(patience), int(frozen), len(lines), int(best["epoch"]))
    )
    return Overview(
        folder,
        "training",
        FINISHED if ended else RUNNING if is_running(folder) else INTERRUPTED,
        model=trial.get("model", TrialConfig.model_fields["model"].default),
        data=_place(data),
        done=len(lines),
        of=epochs,
        **_worth(goal := goal_of(lines), best, goal.value(best) if best is not None else None),
        begun=_begun(folder, CONFIG),
    )


def _worth(goal: Goal, best: Mapping[str, Any] | None, value: float | None) -> dict[str, Any]:
    """Returns what the overview says of a best epoch, given its line of metrics, None where that is gone."""
    if goal.is_accuracy:
        return {"best_val_acc": value}
    known = float(best["val_acc"]) if best is not None else None
    return {"best_val_acc": known, "metric": goal.name, "best_value": value}


def _table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        raise UserError(f"[{name}] must be a table")
    return table


def _begun(folder: Path, *files: str) -> datetime | None:
    """Returns when a search was first started; where it does not say so, when the oldest of `files` was written."""
    try:
        return datetime.strptime(read_starts(folder)[0]["started"], TIME_FORMAT)
    except (LookupError, TypeError, ValueError):
        pass
    times = []
    for name in (*files, LOCK):
        try:
            times.append((folder / name).stat().st_mtime)
        except OSError:
            continue
    return datetime.fromtimestamp(min(times)).astimezone() if times else None
