"""A search's folder as a real search leaves it, with invented figures: study, records, plan and start are written by
the program's own code.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState

from tune_cropshield.config.goals import Goal
from tune_cropshield.config.settings import DataConfig, RunConfig, save_config
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import load_space
from tune_cropshield.data.dataset import LeafData, open_data
from tune_cropshield.data.split_file import write_split
from tune_cropshield.memory.choose.pairs import Figures, Pair, Plan, plan_for_cpu
from tune_cropshield.search.endings import DIVERGED, FINISHED, OUTCOME, PRUNED, REASON
from tune_cropshield.search.folder import save_settings, trial_folder
from tune_cropshield.search.journal import note_goal, open_study
from tune_cropshield.search.launches import STARTS, note_start
from tune_cropshield.search.plan_file import save_plan
from tune_cropshield.search.resources import Resources
from tune_cropshield.training.metrics import EpochMetrics
from tune_cropshield.training.models import build_model
from tune_cropshield.training.predictions import Judged
from tune_cropshield.training.run_folder import CONFIG, RunFolder, best_so_far

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
[space]
lr = {log = [1e-5, 3e-3]}
max_norm = {choice = ["none", 0.5, 1.0, 5.0]}
weight_decay = {log = [1e-5, 1e-1]}
effective_batch = {choice = [16, 32, 64, 128]}
[search]
trials = 100
epochs = 25
grace_epochs = 2
"""
PARAMETERS: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-5, 3e-3, log=True),
    "max_norm": CategoricalDistribution(("none", 0.5, 1.0, 5.0)),
    "weight_decay": FloatDistribution(1e-5, 1e-1, log=True),
    "effective_batch": CategoricalDistribution((16, 32, 64, 128)),
}
REFERENCE_SETTING = {"lr": 1e-4, "max_norm": "none", "weight_decay": 1e-4, "effective_batch": 32}
EPOCHS, RUNGS = 25, (2, 6, 18)
ONE_CPU = Resources("cpu", 2, 0, 2, 1, 1, 0)
GPU_PLAN = Plan(
    pairs={16: (Pair(16, 1),), 32: (Pair(32, 1), Pair(16, 2)), 64: (Pair(64, 1),), 128: (Pair(64, 2), Pair(32, 4))},
    source="probe",
    share_mib=7000.0,
    context_mib=500.0,
    figures={
        Pair(16, 1): Figures(800.0, 850.0, 790.0, 884.0, 574.0),
        Pair(32, 1): Figures(1500.0, 1600.0, 1510.0, 1692.0, 988.0),
        Pair(16, 2): Figures(820.0, 870.0, 810.0, 900.0, 580.0),
        Pair(64, 1): Figures(3000.0, 3200.0, 3010.0, 3314.0, 2616.0),
        Pair(64, 2): Figures(3020.0, 3220.0, None, 3330.0, None),
        Pair(32, 4): Figures(1520.0, 1620.0, None, 1700.0, None),
    },
)


@dataclass
class InventedTrial:
    """What is invented of a trial. accuracies: of each epoch; the rest of the metrics follows from them."""

    parameters: dict[str, Any]
    accuracies: list[float]
    outcome: str | None = FINISHED  # None: under way
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)  # in place of what would follow
    predictions: list[Judged] = field(default_factory=list)  # of the best epoch; none: as if they had not been kept


def invent_search(
    folder: Path,
    leaves: Path,
    cache: Path,
    trials: list[InventedTrial],
    plan: Plan | None = None,
    metric: str = "val_acc",
) -> LeafData:
    """Writes a search of `trials` on the photographs in `leaves` into the new folder, and returns the photographs.

    It is one of a version that wrote no end.json: how it stands is told by what is left to do.
    """
    folder.mkdir(parents=True)
    (folder / "space.toml").write_text(SPACE)
    space = load_space(folder / "space.toml", {"data": {"dir": str(leaves)}, "search": {"metric": metric}})
    (folder / "space.toml").unlink()
    data = open_data(space.data, {32}, cache)
    plan = plan or plan_for_cpu((16, 32, 64, 128))
    save_settings(folder, space, "python -m tune_cropshield search --space search.toml")
    save_plan(folder, plan)
    write_split(folder, data)
    note_start(folder, ["search", "--data", str(leaves)], data, ONE_CPU, None)
    start = json.loads((folder / STARTS).read_text(encoding="utf-8"))
    del start["set"]  # it came later than end.json
    (folder / STARTS).write_text(json.dumps(start) + "\n", encoding="utf-8")
    study = open_study(folder, goal=space.goal)
    note_goal(study, space.goal)
    for number, trial in enumerate(trials):
        _add_to_study(study, trial, space.goal, plan)
        _write_records(trial_folder(folder, number), space, plan, data, trial)
    return data


def _add_to_study(study: optuna.Study, trial: InventedTrial, goal: Goal, plan: Plan) -> None:
    states = {FINISHED: TrialState.COMPLETE, None: TrialState.RUNNING, "failed": TrialState.FAIL}
    state = states.get(trial.outcome, TrialState.PRUNED)
    lines = [_epoch(epoch, accuracy, trial, plan, goal).line() for epoch, accuracy in enumerate(trial.accuracies, 1)]
    best = list(best_so_far(lines).values())
    attributes = (
        {}
        if trial.outcome is None
        else {OUTCOME: trial.outcome, REASON: trial.reason}
        if trial.reason
        else {OUTCOME: trial.outcome}
    )
    study.add_trial(
        optuna.trial.create_trial(
            params=trial.parameters,
            distributions=PARAMETERS,
            state=state,
            value=best[-1] if state == TrialState.COMPLETE else None,
            intermediate_values=dict(enumerate(best, 1)),
            user_attrs=attributes,
        )
    )


def _write_records(folder: Path, space: SearchSpace, plan: Plan, data: LeafData, trial: InventedTrial) -> None:
    pair = plan.best(trial.parameters["effective_batch"])
    settings = space.trial_config(
        {**trial.parameters, "micro_batch": pair.micro_batch, "accumulation": pair.accumulation, "threads": 1}
    )
    folder.mkdir()
    save_config(RunConfig(data=DataConfig(**space.data.model_dump()), trial=settings), folder / CONFIG)
    run = RunFolder(folder)
    lines = [_epoch(epoch, accuracy, trial, plan, space.goal) for epoch, accuracy in enumerate(trial.accuracies, 1)]
    for line in lines:
        run.add_metrics(line.line())
    if lines:
        torch.manual_seed(0)
        best = max(lines, key=lambda line: space.goal.rank_of(line.as_dict()))
        run.save_best(
            build_model("tiny_cnn", len(data.classes)).state_dict(), trial.predictions, best.line(), data.classes
        )


def _epoch(epoch: int, accuracy: float, trial: InventedTrial, plan: Plan, goal: Goal) -> EpochMetrics:
    bound = trial.parameters["max_norm"]
    norm = 1.2 + accuracy
    figures = plan.figures.get(plan.best(trial.parameters["effective_batch"]), Figures())
    values: dict[str, Any] = {
        "epoch": epoch,
        "updates": 10 * epoch,
        "train_loss": 3 * (1 - accuracy) + 0.05,
        "val_loss": 3 * (1 - accuracy) + 0.1,
        "val_acc": accuracy,
        "val_macro_f1": 0.97 * accuracy,
        "lr": trial.parameters["lr"],
        "grad_norm_p50": norm,
        "grad_norm_p95": 2.5 * norm,
        "clip_rate": 0.0 if bound == "none" else 1.0 if bound < norm else 0.04,
        "skipped_steps": 0,
        "loss_scale": 65536.0,
        "images_per_s": figures.images_per_s or 500.0,
        "data_wait_s": 0.02,
        "epoch_s": 1.5,
        "peak_vram_mib": figures.measured_reserved_mib or 0.0,
        "goal": goal,
    }
    return EpochMetrics(**values | trial.metrics)


def invented_trials(count: int, seed: int = 0) -> list[InventedTrial]:
    """Returns the reference setting and `count - 1` others as halving leaves them: most are pruned; one diverged, the
    last is under way.
    """
    random_numbers = random.Random(seed)
    trials = [InventedTrial(REFERENCE_SETTING, _curve(REFERENCE_SETTING, EPOCHS, random_numbers))]
    for number in range(1, count):
        parameters = {
            "lr": 10 ** random_numbers.uniform(-5, -2.6),
            "max_norm": random_numbers.choice(["none", 0.5, 1.0, 5.0]),
            "weight_decay": 10 ** random_numbers.uniform(-5, -1),
            "effective_batch": random_numbers.choice([16, 32, 64, 128]),
        }
        if number == 5:
            trials.append(InventedTrial(parameters, [0.1], DIVERGED, "a gradient stopped being finite in epoch 2"))
            continue
        epochs = random_numbers.choices([*RUNGS, EPOCHS], [5, 3, 1, 2])[0]
        outcome = None if number == count - 1 else FINISHED if epochs == EPOCHS else PRUNED
        trials.append(InventedTrial(parameters, _curve(parameters, epochs, random_numbers), outcome))
    return trials


def _curve(parameters: dict[str, Any], epochs: int, random_numbers: random.Random) -> list[float]:
    reach = 0.95 - 0.15 * abs(math.log10(parameters["lr"]) + 3.2)
    return [
        round(reach * (1 - math.exp(-epoch / 5)) + random_numbers.gauss(0, 0.01), 4) for epoch in range(1, epochs + 1)
    ]
