"""The winners of a search and what they are compared with, trained again with several seeds."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import optuna
import torch

from tune_cropshield.config.goals import VAL_ACC, Goal, goal_of
from tune_cropshield.config.reference import FIRST_TRIAL, REFERENCE, REFERENCE_SETTING
from tune_cropshield.config.settings import RunConfig
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.device import cpu_name
from tune_cropshield.errors import DivergedError, OutOfMemory, UserError
from tune_cropshield.files import write_text_atomically
from tune_cropshield.outcome.trained import read_config
from tune_cropshield.search.endings import DIVERGED, FINISHED, OUT_OF_MEMORY
from tune_cropshield.search.folder import trial_folder
from tune_cropshield.search.journal import NO_BASELINE, best_first, best_value, study_goal
from tune_cropshield.training.loop import run_trial
from tune_cropshield.training.progress import TrialReport
from tune_cropshield.training.run_folder import RunFolder, best_epoch, read_metrics, write_json

TABLE = "confirm.csv"
RUNS = "confirm"  # folder of the runs
CONDITIONS = "conditions.json"  # of a run, in its folder


@dataclass(frozen=True)
class Candidate:
    """A trial of the search that is trained again.

    searched: the goal's best value there. name: what it is called, where the others are compared with it. pruned_after:
    the epochs that it had there, where it was stopped early. goal: what the search went by.
    """

    trial: int
    config: RunConfig
    searched: float
    name: str = REFERENCE_SETTING
    pruned_after: int | None = None
    goal: Goal = VAL_ACC


@dataclass(frozen=True)
class Conditions:
    """Under what a run was trained, beside its setting and its seed: runs are compared only where these are the same.

    device: the name of the GPU or of the processor. threads: of the CPU. torch: its version. photographs: the beginning
    of the store's fingerprint, which changes with them and with their preparation. Runs of earlier versions recorded
    none of it.
    """

    device: str = ""
    threads: int = 0
    torch: str = ""
    photographs: str = ""

    def __str__(self) -> str:
        if not self.device:
            return "conditions that were not recorded"
        return f"{self.device}, {self.threads} threads, torch {self.torch}, photographs {self.photographs}"


def conditions_of(data: DeviceData, threads: int) -> Conditions:
    """Returns the conditions of runs in this process."""
    device = torch.cuda.get_device_name(data.device) if data.device.type == "cuda" else cpu_name()
    return Conditions(device, threads, torch.__version__, data.data.store.fingerprint[:16])


@dataclass(frozen=True)
class ConfirmedRun:
    """One training: a row of confirm.csv, which has the conditions as columns of their own.

    The figures are the best epoch's; a run that diverged before its first epoch has none. best_value: of the search's
    metric, where that is another than val_acc; else None.
    """

    trial: int
    seed: int
    outcome: str
    best_val_acc: float | None
    best_epoch: int | None
    val_macro_f1: float | None
    val_loss: float | None
    epochs: int
    folder: str
    reason: str = ""
    conditions: Conditions = Conditions()
    best_value: float | None = None

    @property
    def value(self) -> float | None:
        """The goal's best value."""
        return self.best_val_acc if self.best_value is None else self.best_value


def candidates(search_dir: Path, study: optuna.Study, top: int, name: str = REFERENCE_SETTING) -> list[Candidate]:
    """Returns trial 0, then the `top` best other trials, best first; equal settings count once.

    Args:
        name: what trial 0 is called. It is the first one that was tried where there is no baseline.

    Raises:
        UserError: when trial 0 or all others have no result.
    """
    with_result = best_first(study)
    if NO_BASELINE in study.user_attrs:
        name = FIRST_TRIAL
    if not any(trial.number == REFERENCE for trial in with_result):
        raise UserError(f"trial {REFERENCE} of {search_dir} ({name}) has no result to compare with")
    chosen: list[Candidate] = []
    for trial in sorted(with_result, key=lambda trial: trial.number != REFERENCE):  # the others stay in their order
        config = read_config(trial_folder(search_dir, trial.number))
        if all(config.trial != other.config.trial for other in chosen):
            ended = trial.state == optuna.trial.TrialState.COMPLETE
            pruned_after = None if ended else max(trial.intermediate_values)
            chosen.append(Candidate(trial.number, config, best_value(trial), name, pruned_after, study_goal(study)))
    if len(chosen) < 2:
        raise UserError(f"{search_dir} has no trial with a result besides {name}")
    return chosen[: top + 1]


def fresh_seeds(candidate: Candidate, count: int, used: int = 1) -> list[int]:
    """Returns the `count` seeds that follow the search's own, of which there were `used`.

    The search chose its winners partly for luck with its own seed; that luck must not count again.
    """
    return [(candidate.config.trial.seed + offset) % 2**32 for offset in range(used, used + count)]


def run_folder(search_dir: Path, trial: int, seed: int, conditions: Conditions) -> Path:
    """Returns a run's folder inside the search's, new or begun under these conditions; short, since Windows paths are.

    A run that was begun under other conditions keeps its own: t003-s1, then t003-s1-2.
    """
    number = 1
    folder = first = Path(RUNS) / f"t{trial:03d}-s{seed}"
    while (search_dir / folder).exists() and _begun_under(search_dir / folder) != conditions:
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    return folder


def _begun_under(folder: Path) -> Conditions:
    try:
        return Conditions(**json.loads((folder / CONDITIONS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # of an earlier version
        return Conditions()


def confirm(
    search_dir: Path,
    chosen: Sequence[Candidate],
    seeds: Sequence[int],
    threads: int,
    data: DeviceData,
    started: Callable[[Candidate, int], Callable[[TrialReport], object]],
) -> Iterator[ConfirmedRun]:
    """Trains every candidate with every seed to its full length and yields each run.

    It goes seed by seed, so that whole pairs are there early.

    A run that confirm.csv holds is not repeated, one that was stopped resumes from its checkpoint; both only where the
    conditions are the same. Runs under other conditions stay in confirm.csv and are not yielded. The seed changes the
    first weights, the order of the photographs and their augmentation; the split has a seed of its own, so all
    runs are validated on the same photographs. Diverging or running out of memory is a run's outcome; other failures
    are raised.

    Args:
        threads: of the CPU, the same for all runs.
        started: called when a run begins, with its candidate and seed; returns what is called after each epoch.
    """
    conditions = conditions_of(data, threads)
    table = read_table(search_dir)
    done = {(run.trial, run.seed): run for run in table if run.conditions == conditions}
    for seed in seeds:
        for candidate in chosen:
            run = done.get((candidate.trial, seed))
            if run is None:
                trial = candidate.config.trial.model_copy(update={"seed": seed, "threads": threads})
                config = candidate.config.model_copy(update={"trial": trial})
                run = _train(search_dir, config, candidate.trial, data, conditions, started(candidate, seed))
                table.append(run)
                write_table(search_dir, table)
                RunFolder(search_dir / run.folder).drop_checkpoints()
            yield run


def _train(
    search_dir: Path,
    config: RunConfig,
    trial: int,
    data: DeviceData,
    conditions: Conditions,
    report: Callable[[TrialReport], object],
) -> ConfirmedRun:
    folder = run_folder(search_dir, trial, config.trial.seed, conditions)
    (search_dir / folder).mkdir(parents=True, exist_ok=True)
    write_json(search_dir / folder / CONDITIONS, asdict(conditions))
    outcome, reason = FINISHED, ""
    try:
        run_trial(config, data, search_dir / folder, report, resume=True)
    except DivergedError as error:
        outcome, reason = DIVERGED, str(error)
    except OutOfMemory as error:
        outcome, reason = OUT_OF_MEMORY, str(error)
    lines = read_metrics(search_dir / folder)
    best, goal = best_epoch(lines) or {}, goal_of(lines)
    return ConfirmedRun(
        trial=trial,
        seed=config.trial.seed,
        outcome=outcome,
        best_val_acc=best.get("val_acc"),
        best_epoch=best.get("epoch"),
        val_macro_f1=best.get("val_macro_f1"),
        val_loss=best.get("val_loss"),
        epochs=len(lines),
        folder=folder.as_posix(),
        reason=reason,
        conditions=conditions,
        best_value=goal.value(best) if best and not goal.is_accuracy else None,
    )


def write_table(search_dir: Path, runs: Sequence[ConfirmedRun]) -> None:
    """Writes confirm.csv: a row per run that has ended."""
    text = io.StringIO()
    own = [field.name for field in fields(ConfirmedRun) if field.name != "conditions"]
    writer = csv.DictWriter(text, [*own, *(field.name for field in fields(Conditions))], lineterminator="\n")
    writer.writeheader()
    for run in sorted(runs, key=lambda run: (run.trial, run.seed)):
        writer.writerow({**{name: getattr(run, name) for name in own}, **asdict(run.conditions)})
    write_text_atomically(search_dir / TABLE, text.getvalue())


def under_other_conditions(runs: Iterable[ConfirmedRun], conditions: Conditions) -> dict[Conditions, int]:
    """Returns how many of `runs` were trained under which other conditions."""
    return Counter(run.conditions for run in runs if run.conditions != conditions)


def read_table(search_dir: Path) -> list[ConfirmedRun]:
    """Returns the runs in confirm.csv, none where there is no such file. Raises UserError when it is damaged."""
    path = search_dir / TABLE
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [_run(row) for row in csv.DictReader(file)]
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}): delete it, and its runs are trained again") from error


def _run(row: dict[str, str]) -> ConfirmedRun:
    return ConfirmedRun(
        trial=int(row["trial"]),
        seed=int(row["seed"]),
        outcome=row["outcome"],
        best_val_acc=float(row["best_val_acc"]) if row["best_val_acc"] else None,
        best_epoch=int(row["best_epoch"]) if row["best_epoch"] else None,
        val_macro_f1=float(row["val_macro_f1"]) if row["val_macro_f1"] else None,
        val_loss=float(row["val_loss"]) if row["val_loss"] else None,
        epochs=int(row["epochs"]),
        folder=row["folder"],
        reason=row["reason"],
        conditions=Conditions(row["device"], int(row["threads"]), row["torch"], row["photographs"])
        if "device" in row
        else Conditions(),
        best_value=float(row["best_value"]) if row.get("best_value") else None,
    )
