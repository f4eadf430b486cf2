"""The files of a search: search.toml, trials.csv, the journal, a folder per trial; and who may write to them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import optuna
import tomli_w
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

from tune_cropshield.config.goals import VAL_ACC, Goal, goal_of
from tune_cropshield.config.space import SETTINGS, SearchSpace
from tune_cropshield.config.toml_files import without_none
from tune_cropshield.errors import UserError
from tune_cropshield.files import is_leftover, sync_names, sync_tree, write_text_atomically
from tune_cropshield.search.endings import REASON, outcome_now, shown_state
from tune_cropshield.search.journal import JOURNAL, PART_EPOCHS, best_first, best_value, is_stopped, study_goal
from tune_cropshield.shell import PROGRAM
from tune_cropshield.training.metrics import METRIC_NAMES
from tune_cropshield.training.run_folder import (
    PART_ENDED,
    WEIGHTS,
    RunFolder,
    best_epoch,
    network_folder,
    part_folders,
    read_digest,
    read_metrics,
    spread_of_parts,
)

TABLE = "trials.csv"
LOCK = ".lock"
LOOK_S = 0.3  # who only looks whether a search runs, as `list` does, holds its lock for an instant: that is waited for
# trials.csv holds the metrics of the best epoch; `lr` there is the parameter, so the metric takes another name.
COLUMN_OF_METRIC = {
    name: "epoch_lr" if name == "lr" else name for name in METRIC_NAMES if name not in ("epoch", "val_acc")
}
WEIGHTS_BUDGET_BYTES = 2 * 10**9  # of the best trials' weights; the worse ones' go
CHECKPOINTS_BUDGET_BYTES = 4 * 10**9  # of the trials that were stopped and may be continued; the worse ones' go

# Parameters that no training can miss. A clipping norm may never be reached, a weight decay may be too small to change
# a float.
ALWAYS_FELT = (
    *("lr", "effective_batch", "optimizer", "augment", "mixup", "cutmix", "label_smoothing", "dropout"),
    *("sampling", "focal_gamma"),
)


def trial_folder(search_dir: Path, number: int) -> Path:
    """Returns the folder of a trial; its name is short, since Windows paths are."""
    return search_dir / f"t{number:03d}"


def reached(search_dir: Path, trial: FrozenTrial) -> float:
    """Returns the best that a trial has come to, by the goal and its metrics.jsonl, as the report has it.

    Of an interrupted trial the study may lack the last epoch, and of an earlier version's the file may be gone.
    """
    lines = read_metrics(trial_folder(search_dir, trial.number))
    best = best_epoch(lines)
    return best_value(trial) if best is None else goal_of(lines).value(best)


def holds_search(folder: Path) -> bool:
    """Tells whether a search was begun in `folder`."""
    return (folder / SETTINGS).exists() or (folder / JOURNAL).exists()


def check_new(folder: Path) -> None:
    """Raises UserError when `folder` cannot take a new search.

    It holds one, or something else.
    """
    if holds_search(folder):
        raise UserError(f"{folder} already contains a search: continue it (--resume) or give another folder (--out)")
    if folder.exists() and (
        not folder.is_dir() or any(path.name != LOCK and not is_leftover(path) for path in folder.iterdir())
    ):
        raise UserError(f"{folder} exists and is not an empty folder: give another one (--out)")


def make_folder(folder: Path) -> None:
    """Creates `folder`; raises UserError when it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / LOCK).touch()
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}): give another folder (--out)") from None


@contextmanager
def locked(folder: Path, what: str = "search") -> Iterator[None]:
    """Holds `folder` for this process alone; raises UserError when another process does, as while a search runs.

    what: runs there, in the message.
    """
    lock = FileLock(folder / LOCK)
    try:
        with lock.acquire(timeout=LOOK_S):
            yield
    except Timeout:
        raise UserError(f"a {what} is running in {folder}: wait until it ends, or stop it") from None


def check_not_running(folder: Path, what: str = "search") -> None:
    """Raises UserError, as `locked` does, when another process holds `folder`. No file is touched."""
    if (folder / LOCK).exists():
        with suppress(OSError), locked(folder, what):  # a folder that cannot be written to is told about later
            pass


def is_running(folder: Path) -> bool:
    """Tells whether some process holds `folder`, as a search does while it runs."""
    if not (folder / LOCK).exists():
        return False
    try:
        with locked(folder):
            return False
    except UserError:
        return True
    except OSError:  # a folder that cannot be written to
        return False


def save_settings(folder: Path, space: SearchSpace, command: str) -> None:
    """Writes search.toml: everything that was set, so that the search can be repeated from this file alone."""
    elsewhere = f"{PROGRAM} search --space {SETTINGS}"
    note = f"# Search again:  {command}\n# with another environment, in this file's folder:  {elsewhere}\n\n"
    write_text_atomically(folder / SETTINGS, note + tomli_w.dumps(without_none(space.model_dump(by_alias=True))))


def write_table(folder: Path, study: optuna.Study) -> None:
    """Writes trials.csv: a row per trial, with every parameter under its name and all metrics of its best epoch."""
    rows = trial_rows(folder, study)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else _columns([]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text_atomically(folder / TABLE, text.getvalue())


def trial_rows(folder: Path, study: optuna.Study, *, running: bool = False) -> list[dict[str, Any]]:
    """Returns the rows of trials.csv: one per trial that was started, all with the same columns in the same order.

    None stands for what a trial does not have: a parameter of another branch, the metrics before its first epoch. Where
    trials are in parts, `parts` is how many of them have ended, the metrics are means over these, and `val_acc_std` is
    the standard deviation of their best val_acc. Where trials are judged by another metric, `best_METRIC` comes before
    best_val_acc, which is then the accuracy of the epoch that is best by that metric, and it is `METRIC_std`.

    running: whether the search is under way; the outcome of a trial without an end is else "unfinished".
    """
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING]
    in_parts, goal = PART_EPOCHS in study.user_attrs, study_goal(study)
    columns = _columns(trials, in_parts, goal)
    return [{column: None for column in columns} | _row(folder, trial, in_parts, goal, running) for trial in trials]


def _columns(trials: list[FrozenTrial], in_parts: bool = False, goal: Goal = VAL_ACC) -> list[str]:
    parameters = list(dict.fromkeys(name for trial in trials for name in trial.params))
    of_parts = ["parts", f"{goal.name}_std"] if in_parts else []
    best = dict.fromkeys([f"best_{goal.name}", "best_val_acc"])
    metrics = ["epochs", *of_parts, "best_epoch", *best, *COLUMN_OF_METRIC.values()]
    return ["trial", "state", *parameters, *metrics, "outcome", "reason"]


def _row(folder: Path, trial: FrozenTrial, in_parts: bool, goal: Goal, running: bool) -> dict[str, Any]:
    lines = read_metrics(trial_folder(folder, trial.number))
    best = best_epoch(lines)
    row: dict[str, Any] = {"trial": trial.number, "state": shown_state(trial), **trial.params, "epochs": len(lines)}
    if in_parts:
        row |= {"parts": sum(line.get(PART_ENDED, False) for line in lines), f"{goal.name}_std": spread_of_parts(lines)}
    if best is not None:
        row |= {"best_epoch": best["epoch"], "best_val_acc": best["val_acc"], f"best_{goal.name}": goal.value(best)}
        row |= {column: best.get(name) for name, column in COLUMN_OF_METRIC.items()}  # older searches knew fewer
    return row | {"outcome": outcome_now(trial, running=running), "reason": trial.user_attrs.get(REASON, "")}


def sync_ended_trial(search_dir: Path, number: int) -> None:
    """Returns when all files of a trial are on the disk; a trial that never began has none.

    A failure of the disk other than that it is full is passed over: nobody could do anything about it.
    """
    folder = trial_folder(search_dir, number)
    with suppress(OSError):
        sync_tree(folder)
        sync_names(search_dir)


def equal_weights(folder: Path, study: optuna.Study, number: int) -> str | None:
    """Returns a sentence when trial `number` ended with the very weights of another one, else None.

    The sentence is returned only where what was asked of them differs.
    """
    trials = study.get_trials(deepcopy=False)
    digest = read_digest(network_folder(trial_folder(folder, number)))
    others = [other for other in trials if other.number != number] if digest is not None else []
    for other in others:
        if read_digest(network_folder(trial_folder(folder, other.number))) == digest:
            first, second = sorted((number, other.number))
            theirs, mine = trials[first].params, trials[second].params
            both = [name for name in ALWAYS_FELT if name in mine and name in theirs]
            different = [name for name in both if not _as_good_as_equal(mine[name], theirs[name])]
            if different:
                settings = ", ".join(f"{name} ({theirs[name]} and {mine[name]})" for name in different)
                return (
                    f"trials {first} and {second} have identical weights although they differ in {settings}: the "
                    "settings have no effect on the training, so comparing trials would be meaningless"
                )
    return None


def _as_good_as_equal(one: object, other: object) -> bool:
    """Tells whether two values of a parameter are the same in fp32, in which networks are trained."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-7)
    return one == other


def drop_losers(
    folder: Path,
    study: optuna.Study,
    budget_bytes: int = WEIGHTS_BUDGET_BYTES,
    checkpoints_bytes: int = CHECKPOINTS_BUDGET_BYTES,
) -> None:
    """Deletes what cannot be needed any more, or takes too much space.

    That is: ended trials' checkpoints, and the weights of all but the best trials that fit the budget; of a trial in
    parts, those of all but its best part. Of trials that were stopped and may be continued, the checkpoints of all
    but the best that fit `checkpoints_bytes`: without one, a trial goes on from its start, with the same numbers.
    """
    ranked = best_first(study)
    numbers = {trial.number for trial in ranked}
    others = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in numbers]
    kept = saved = 0
    for trial in [*ranked, *others]:
        may_go_on = is_stopped(trial)
        if not (trial.state.is_finished() or may_go_on):
            continue
        run_dir = trial_folder(folder, trial.number)
        network = network_folder(run_dir)
        runs = [RunFolder(place) for place in (run_dir, *part_folders(run_dir))]
        saved += sum(run.checkpoint_bytes for run in runs) if may_go_on else 0
        for run in runs:
            if not may_go_on or saved > checkpoints_bytes:
                run.drop_checkpoints()
            if run.path != network and not may_go_on:
                (run.path / WEIGHTS).unlink(missing_ok=True)
        weights = network / WEIGHTS
        if weights.exists():
            kept += weights.stat().st_size
            if kept > budget_bytes and trial not in ranked[:1] and not may_go_on:
                weights.unlink(missing_ok=True)
