"""`show`: a search, or one of its trials."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.arguments import AnyPath
from tune_cropshield.api.names import search_named
from tune_cropshield.config.space import SETTINGS
from tune_cropshield.config.toml_files import read_toml
from tune_cropshield.errors import UserError
from tune_cropshield.shell import command
from tune_cropshield.training.run_folder import CONFIG, best_epoch, network_folder, read_metrics

if TYPE_CHECKING:  # Optuna takes a third of a second to import: a wrong folder is told about before
    from tune_cropshield.outcome.overview import Overview

TRIAL_NAMES = "a number, t003, best or final"
COUNTS: tuple[str, ...] = ("photographs", "classes", "train", "val", "test")  # in a line of starts.jsonl


@dataclass(frozen=True)
class ShownSearch:
    """A search as it stands.

    Attributes:
        overview: how it stands, in a few facts.
        photographs: how many there are, in how many classes, and in which part of the split: {"photographs",
            "classes", "train", "val", "test"}; empty where it did not note them.
        starts: how often it was started.
        seconds: that all starts have taken.
        searched: {name: its range, in words}.
        fine_tuning: how the head and the rest of the network are trained apart, in words; "" where they are not.
        trials: a row per trial as in trials.csv, the best first; those without a result follow by number.
        summary: sentences on how it went, those of its end.
    """

    overview: Overview
    photographs: dict[str, int]
    starts: int
    seconds: float
    searched: dict[str, str]
    fine_tuning: str
    trials: list[dict[str, Any]] = field(repr=False)
    summary: list[str] = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values."""
        return {**vars(self), "overview": self.overview.as_dict()}


@dataclass(frozen=True)
class ShownTrial:
    """One training: a search's trial, its final training, or that of `train`.

    Attributes:
        folder: its own.
        number: of a trial; of a final training, the trial whose setting it has; None where there is none.
        state: "finished", "pruned", "diverged", "out of memory", "failed" or "running"; of a trial that was under way
            when its search stopped "unfinished", of a training "interrupted".
        ended: a sentence that says after how many epochs, and why.
        parameters: of a trial, what was searched; else all that differs from the defaults.
        epochs: the lines of metrics.jsonl, one each.
        best: the best epoch's; None before the first.
        files: {what it is: where}, those that are there.
        train_again: the command; None where its settings are not there.
    """

    folder: Path
    number: int | None
    state: str
    ended: str
    parameters: dict[str, Any]
    epochs: list[dict[str, Any]] = field(repr=False)
    best: dict[str, Any] | None
    files: dict[str, Path]
    train_again: str | None

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as plain values."""
        files = {what: str(path) for what, path in self.files.items()}
        return {**vars(self), "folder": str(self.folder), "files": files}


def show(search: AnyPath, trial: int | str | None = None) -> ShownSearch | ShownTrial:
    """Returns a search as it stands, or with `trial` one of its trials. Nothing is written.

    Args:
        search: A search's folder, or its name in results/runs; also the folder of a trial or of a training.
        trial: A number, "t003", "best" for the one whose network is the result, or "final" for the final training.

    Raises:
        UserError: There is no such search or trial, or it is damaged.
    """
    folder = search_named(search)
    from tune_cropshield.outcome.overview import is_training
    from tune_cropshield.search.folder import holds_search

    with _damage_told(folder):
        if holds_search(folder):
            return _search(folder) if trial is None else _wanted(folder, trial)
        whole = folder.absolute()
        if trial is None and re.fullmatch(r"t\d{3,}", whole.name) and holds_search(whole.parent):
            return _trial(folder.parent, int(whole.name[1:]))
        if not is_training(folder):
            raise UserError(f"{folder} holds neither a search nor a training")
        if trial is not None:
            raise UserError(f"{folder} is a training and has no trials: leave out {trial}")
        return _training(folder)


@contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    """Turns what a reader makes of a file that is no longer what the program wrote into UserError."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{folder} is damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def _wanted(folder: Path, trial: int | str) -> ShownTrial:
    """Returns the trial of a search that is named by a number, t003, best or final."""
    text = str(trial)
    if found := re.fullmatch(r"t?(\d{1,9})", text):
        return _trial(folder, int(found[1]))
    if text not in ("best", "final"):
        raise UserError(f"TRIAL must be {TRIAL_NAMES}, but got {text}")
    return _result(folder) if text == "best" else _final(folder)


def _search(folder: Path) -> ShownSearch:
    from tune_cropshield.outcome import words
    from tune_cropshield.outcome.ledger import spent_s
    from tune_cropshield.outcome.overview import overview
    from tune_cropshield.outcome.settings_in_words import fine_tuning, searched
    from tune_cropshield.outcome.summary import summary_lines
    from tune_cropshield.outcome.trained import BEST
    from tune_cropshield.search.endings import RUNNING
    from tune_cropshield.search.final import delivered
    from tune_cropshield.search.folder import trial_rows
    from tune_cropshield.search.journal import JOURNAL, best_first, read_study
    from tune_cropshield.search.launches import read_starts

    about, starts = overview(folder), read_starts(folder)
    if about.done is None:
        raise UserError(f"{folder} is damaged: {about.why}")
    last = starts[-1] if starts else {}
    counts = {name: last[name] for name in COUNTS if name in last}
    tables = read_toml(folder / SETTINGS)
    settings, apart = searched(tables), fine_tuning(tables.get("trial", {}))
    if not (folder / JOURNAL).exists():
        return ShownSearch(about, counts, len(starts), 0.0, settings, apart, [], [])
    study, running = read_study(folder), about.state == RUNNING
    place = {trial.number: rank for rank, trial in enumerate(best_first(study))}
    rows = sorted(
        trial_rows(folder, study, running=running), key=lambda row: (place.get(row["trial"], len(place)), row["trial"])
    )
    lines = summary_lines(study, folder, folder, running=running) if rows else []
    if not (folder / BEST).exists():
        lines = [line for line in lines if str(folder / BEST) not in line]
    if (final := delivered(folder, study)) is not None:
        after = words.counted(len(final.lines), "epoch")
        lines.append(f"the result is the final training: {final.goal.named(final.value)} after {after}")
    return ShownSearch(about, counts, len(starts), spent_s(folder)[0], settings, apart, rows, lines)


def _trial(folder: Path, number: int) -> ShownTrial:
    from tune_cropshield.search.endings import FINISHED, PRUNED, REASON, outcome_now
    from tune_cropshield.search.folder import trial_folder
    from tune_cropshield.search.journal import read_study, started
    from tune_cropshield.search.state import is_under_way

    study = read_study(folder)
    trials = started(study)
    if not 0 <= number < len(trials):
        there = f"trials 0 to {len(trials) - 1}" if len(trials) > 1 else "trial 0 only" if trials else "no trial yet"
        raise UserError(f"there is no trial {number}: {folder} has {there}")
    frozen, run_dir = trials[number], trial_folder(folder, number)
    state = outcome_now(frozen, running=is_under_way(folder, study))
    lines, reason = read_metrics(run_dir), str(frozen.user_attrs.get(REASON, ""))
    ended = _after(state, lines)
    if reason:
        ended += f": {reason}"
    elif state == PRUNED:
        ended += ": it was not among the best at that pruning step"
    elif state == FINISHED:
        ended += _early(run_dir, lines)
    return _shown(run_dir, number, state, ended, dict(frozen.params), lines)


def _result(folder: Path) -> ShownTrial:
    from tune_cropshield.search.final import delivered
    from tune_cropshield.search.journal import best_trial, read_study

    study = read_study(folder)
    return _trial(folder, best_trial(study).number) if delivered(folder, study) is None else _final(folder)


def _final(folder: Path) -> ShownTrial:
    from tune_cropshield.search.endings import RUNNING, UNFINISHED
    from tune_cropshield.search.final import delivered, final_trainings
    from tune_cropshield.search.journal import read_study
    from tune_cropshield.search.state import is_under_way

    study = read_study(folder)
    trainings = final_trainings(folder)
    if not trainings:
        raise UserError(f"{folder} has no final training (search --finish ends with one)")
    final = delivered(folder, study) or trainings[-1]
    state = final.outcome or (RUNNING if is_under_way(folder, study) else UNFINISHED)
    ended = _after(state, final.lines) + (f": {final.reason}" if final.reason else "")
    trials = study.get_trials(deepcopy=False)
    parameters = dict(trials[final.trial].params) if final.trial is not None else _not_default(final.folder)
    return _shown(final.folder, final.trial, state, ended, parameters, final.lines)


def _training(folder: Path) -> ShownTrial:
    from tune_cropshield.outcome.overview import overview
    from tune_cropshield.search.endings import FINISHED

    about, lines = overview(folder), read_metrics(folder)
    if about.done is None:
        raise UserError(f"{folder} is damaged: {about.why}")
    ended = _after(about.state, lines) + (_early(folder, lines) if about.state == FINISHED else "")
    return _shown(folder, None, about.state, ended, _not_default(folder), lines)


def _after(state: str, lines: list[dict[str, Any]]) -> str:
    from tune_cropshield.outcome import words

    return f"{state} after {words.counted(len(lines), 'epoch')}"


def _early(run_dir: Path, lines: list[dict[str, Any]]) -> str:
    """Returns the end of a sentence on a training that finished: that it waited in vain for a better epoch, or ""."""
    from tune_cropshield.outcome import words

    trial = _settings(run_dir)
    patience, best = trial.get("early_stopping"), best_epoch(lines)
    if not patience or best is None or len(lines) >= trial.get("epochs", 0):
        return ""
    waited = len(lines) - max(best["epoch"], trial.get("unfreeze_epochs", 0))
    return f" of {trial['epochs']}: none was better in {words.counted(waited, 'epoch')}"


def _settings(run_dir: Path) -> dict[str, Any]:
    try:
        found = read_toml(run_dir / CONFIG).get("trial", {})
    except UserError:
        return {}
    return found if isinstance(found, dict) else {}


def _not_default(run_dir: Path) -> dict[str, Any]:
    from tune_cropshield.config.settings import TrialConfig

    defaults = {name: known.default for name, known in TrialConfig.model_fields.items()}
    return {
        name: value for name, value in _settings(run_dir).items() if name not in defaults or value != defaults[name]
    }


def _shown(
    run_dir: Path,
    number: int | None,
    state: str,
    ended: str,
    parameters: dict[str, Any],
    lines: list[dict[str, Any]],
) -> ShownTrial:
    from tune_cropshield.training.predictions import PREDICTIONS
    from tune_cropshield.training.run_folder import METRICS, WEIGHTS

    network = network_folder(run_dir)
    places = {
        "settings": run_dir / CONFIG,
        "metrics": run_dir / METRICS,
        "weights": network / WEIGHTS,
        "predictions": network / PREDICTIONS,
    }
    files = {what: path for what, path in places.items() if path.is_file()}
    again = command("train", "--config", run_dir / CONFIG) if "settings" in files else None
    return ShownTrial(run_dir, number, state, ended, parameters, lines, best_epoch(lines), files, again)
