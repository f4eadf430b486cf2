"""The final training: the winner's setting, anew and for as long as the time allows, on all cores."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.goals import Goal, goal_of
from tune_cropshield.config.settings import RunConfig
from tune_cropshield.config.space import SETTINGS
from tune_cropshield.config.space_file import load_space
from tune_cropshield.config.units import MIB
from tune_cropshield.device import num_cores
from tune_cropshield.errors import DiskFull, DivergedError, OutOfMemory, UserError
from tune_cropshield.search.endings import DIVERGED, FAILED, FINISHED, OUT_OF_MEMORY
from tune_cropshield.training.run_folder import METRICS, RunFolder, best_epoch, read_metrics, write_json

if TYPE_CHECKING:  # Optuna and the search's parts take half a second to import, and who reads has no use for them
    import optuna

    from tune_cropshield.search.context import Search
    from tune_cropshield.training.progress import TrialReport

FINAL = "final"  # in a search's folder; where it was continued afterwards, final-2 is the next
ORIGIN = "origin.json"  # in a final training's folder and in best/: whose setting it is, and how it ended
TIMES_AS_LONG = 4  # as the longest trial, where no time is given


@dataclass(frozen=True)
class FinalTraining:
    """A final training, as its folder tells it.

    trial: whose setting it has; None where no trial was searched. after_trials: how many had been started before it.
    outcome: None while it has not ended. lines: of metrics.jsonl, an epoch each.
    """

    folder: Path
    trial: int | None
    after_trials: int
    outcome: str | None
    reason: str
    lines: list[dict[str, Any]]

    @property
    def best(self) -> dict[str, Any] | None:
        """The metrics of its best epoch; None before the first."""
        return best_epoch(self.lines)

    @property
    def goal(self) -> Goal:
        """What its epochs are judged by."""
        return goal_of(self.lines)

    @property
    def value(self) -> float:
        """The goal's best value so far; NaN before the first epoch."""
        return self.goal.value(self.best) if self.best is not None else math.nan


def final_trainings(search_dir: Path) -> list[FinalTraining]:
    """Returns the final trainings of a search, the oldest first."""
    numbered = {int(path.name[len(FINAL) + 1 :] or 1): path for path in search_dir.glob(f"{FINAL}*") if _is_one(path)}
    return [_read(numbered[number]) for number in sorted(numbered)]


def _is_one(path: Path) -> bool:
    return re.fullmatch(rf"{FINAL}(-\d+)?", path.name) is not None and (path / ORIGIN).is_file()


def _read(folder: Path) -> FinalTraining:
    try:
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        origin = {}
    return FinalTraining(
        folder=folder,
        trial=origin.get("trial"),
        after_trials=origin.get("after_trials", 0),
        outcome=origin.get("outcome"),
        reason=origin.get("reason", ""),
        lines=read_metrics(folder),
    )


def delivered(search_dir: Path, study: optuna.Study) -> FinalTraining | None:
    """Returns the final training whose network is the search's result; None where a trial's is.

    That is the best one, where it is no worse on the validation photographs than every trial. Of equals the longer
    training is likely to be better on others: trials are chosen among many by these very photographs. Trials on folds
    are validated on other photographs and do not compare: then it is one that has come to its end.
    """
    from tune_cropshield.search.journal import best_first, best_value

    on_folds = _on_folds(search_dir)
    finals = [final for final in final_trainings(search_dir) if not on_folds or final.outcome == FINISHED]
    best = max(finals, key=lambda final: final.goal.rank(final.value), default=None)
    if best is None or best.best is None:
        return None
    if on_folds:
        return best
    rank, trials = best.goal.rank, best_first(study)
    return best if not trials or rank(best.value) >= rank(best_value(trials[0])) else None


def _on_folds(search_dir: Path) -> bool:
    try:
        return load_space(search_dir / SETTINGS).search.folds > 1
    except UserError:  # settings of another version
        return False


def next_folder(search_dir: Path) -> Path:
    """Returns where the next final training goes: final, then final-2."""
    number = len(final_trainings(search_dir)) + 1
    return search_dir / (FINAL if number == 1 else f"{FINAL}-{number}")


def setting_of(search: Search) -> tuple[RunConfig, int | None]:
    """Returns the setting to train at the end, on all cores, and the trial that it is of: the winner's.

    Where no trial has a result it is the first starting point beside the reference setting, and no trial's.
    """
    run, number = _as_in_trials(search)
    return run.model_copy(update={"trial": run.trial.model_copy(update={"threads": num_cores()})}), number


def _as_in_trials(search: Search) -> tuple[RunConfig, int | None]:
    from tune_cropshield.search.journal import best_first
    from tune_cropshield.search.start_points import reference_point, start_points

    trials = best_first(search.study)
    if trials:
        parameters, number = dict(trials[0].params), trials[0].number
    else:
        starts = start_points(search.space, search.plan, search.knowledge)
        behind = starts[1:] if search.space.search.baseline else starts  # trial 0 is no starting point
        first = next(iter([*behind, *starts]), {})
        rest = search.space.fitted({**reference_point(search.space), **first})
        parameters, number = {**rest, **first}, None
    return search.run_config(parameters), number


def epochs_to_expect(search: Search, number: int | None, left_s: float) -> tuple[int, int]:
    """Returns (about how many epochs fit into `left_s`, how many a training of the trial `number` had).

    By the trial's own pace, which is another one with all cores; both are 0 where there is no trial.
    """
    lines = read_metrics(search.trial_folder(number)) if number is not None else []
    seconds = sum(float(line["epoch_s"]) for line in lines)
    return (int(max(left_s, 0.0) * len(lines) / seconds) if seconds else 0), min(len(lines), search.space.search.epochs)


def train_final(
    search: Search,
    folder: Path,
    config: RunConfig,
    number: int | None,
    ends: float | None,
    report: Callable[[TrialReport, int], object],
) -> FinalTraining:
    """Trains `config` to its end, or goes on with what is in `folder`, and returns how it ended.

    A training that fails costs nothing but its time: the failure is its outcome. Only an interruption and a full disk
    are raised.

    Args:
        number: the trial whose setting it is.
        ends: of time.monotonic, to which the number of epochs is fitted; None trains as many as `config` says.
        report: is called after each epoch, with the number of epochs that are planned now.
    """
    import torch

    from tune_cropshield.data.dataset import DeviceData
    from tune_cropshield.memory.guard import cap_allocator
    from tune_cropshield.search.journal import num_started
    from tune_cropshield.training.fitted import train_until
    from tune_cropshield.training.loop import run_trial

    folder.mkdir(exist_ok=True)
    origin: dict[str, Any] = {"trial": number, "after_trials": num_started(search.study)}
    write_json(folder / ORIGIN, origin)
    device, plan = torch.device(search.resources.device), search.plan
    cap_allocator(plan.share_mib, device)
    spare_mib = plan.spare_mib(search.space.search.pairs == "all")
    data = DeviceData(search.data, device, int(spare_mib * MIB))
    resume, options = (folder / METRICS).exists(), {"memory_mib": plan.share_mib}
    origin["outcome"] = FINISHED
    try:
        if ends is None:
            planned = config.trial.epochs
            run_trial(config, data, folder, lambda done: report(done, planned), resume=resume, **options)  # type: ignore[arg-type]
        else:
            train_until(ends, config, data, folder, report, resume=resume, **options)
    except DivergedError as error:
        origin |= {"outcome": DIVERGED, "reason": str(error)}
    except OutOfMemory as error:
        origin |= {"outcome": OUT_OF_MEMORY, "reason": str(error)}
    except DiskFull:
        raise
    except Exception as error:
        origin |= {"outcome": FAILED, "reason": f"{type(error).__name__}: {error}".split("\n")[0]}
    RunFolder(folder).drop_checkpoints()
    write_json(folder / ORIGIN, origin)
    return _read(folder)


def measured_epoch_s(search: Search) -> float | None:
    """Returns about how long an epoch of a trial takes on this machine, before anything was trained.

    On a GPU by what was measured for the plan; on a CPU a few updates are timed, in a second or two, with as many
    threads as a trial has. None where it is not known.
    """
    from tune_cropshield.memory.choose.pairs import Pair

    config, _ = _as_in_trials(search)
    count = len(search.data.split.train)
    if search.resources.device == "cuda":
        values = config.trial.model_dump()
        figures = search.plan.of(values).figures.get(Pair(*config.trial.pair))
        return count / figures.images_per_s if figures is not None and figures.images_per_s else None
    import torch

    from tune_cropshield.data.dataset import DeviceData
    from tune_cropshield.training.fitted import timed_epoch_s

    try:
        return timed_epoch_s(config, DeviceData(search.data, torch.device("cpu")))
    except Exception:  # a user's own code, or a loss that is not finite: trials will say what is wrong
        return None
