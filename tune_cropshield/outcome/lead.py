"""What the winner's lead over the second-best trial is worth: both judged the same validation photographs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from tune_cropshield.config.goals import VAL_ACC, Goal, goal_of
from tune_cropshield.outcome import words
from tune_cropshield.outcome.paired import Comparison, compare
from tune_cropshield.outcome.shares import OnSamePhotographs, on_same_photographs
from tune_cropshield.search.folder import trial_folder
from tune_cropshield.search.journal import PART_EPOCHS, best_first, best_value, study_goal
from tune_cropshield.training.predictions import PREDICTIONS, read_judged
from tune_cropshield.training.run_folder import best_of_parts, network_folder, read_metrics

CHANCE = 0.05  # how often chance alone may pass for a lead


@dataclass(frozen=True)
class Lead:
    """The winner (first) and the second-best trial on the same photographs. runner_up: the latter's number.

    worth: what the latter is worth, in words, where the search goes by another metric than the accuracy; else "".
    """

    runner_up: int
    found: OnSamePhotographs
    worth: str = ""

    @property
    def share(self) -> float:
        """By which share of the photographs the winner is ahead."""
        return (self.found.only_first - self.found.only_second) / self.found.count

    @property
    def sentence(self) -> str:
        """Returns what stands behind the winner: how large its lead is, and whether chance explains it."""
        against = f"{words.counted(self.found.only_first, 'photograph')} against {self.found.only_second}"
        if self.worth:
            return (
                f"the second-best, trial {self.runner_up}, has {self.worth}; of the same photographs, the winner alone "
                f"gets {self.found.only_first} right and trial {self.runner_up} alone {self.found.only_second} "
                f"({words.p_equals(self.found.p_value)}), which compares accuracies alone"
            )
        if self.found.only_first == self.found.only_second:
            return f"trial {self.runner_up} is as good ({against} that only one of the two gets right)"
        within = self.found.p_value >= CHANCE
        worth = "could be chance" if within else "is larger than chance would give"
        return (
            f"its lead over trial {self.runner_up} ({words.points(self.share).removeprefix('+')} points, {against}) "
            f"{worth} ({words.p_equals(self.found.p_value)})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the same for programs; lead is a share of the photographs, p_value McNemar's exact test's."""
        return {
            "trial": self.runner_up,
            "lead": self.share,
            "photographs": self.found.count,
            "only_best": self.found.only_first,
            "only_runner_up": self.found.only_second,
            "p_value": self.found.p_value,
        }


@dataclass(frozen=True)
class LeadOverParts:
    """The winner and the second-best trial part by part, on the same folds or with the same seeds."""

    runner_up: int
    found: Comparison
    goal: Goal = VAL_ACC

    @property
    def sentence(self) -> str:
        """Returns what stands behind the winner: how large its lead is, and whether chance explains it."""
        gain = words.better_by(self.goal, self.found.gain)
        worth = "could be chance" if self.found.p_value >= CHANCE else "is larger than chance would give"
        return (
            f"its lead over trial {self.runner_up} ({gain}, the mean over the {self.found.num_pairs} parts that "
            f"both finished) {worth} ({words.p_equals(self.found.p_value)}, paired t-test)"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the same for programs; lead is in the goal's unit, p_value that of the paired t-test."""
        found = self.found
        return {"trial": self.runner_up, "lead": found.gain, "parts": found.num_pairs, "p_value": found.p_value}


def lead_of_winner(study: optuna.Study, search_dir: Path) -> Lead | LeadOverParts | None:
    """Returns the winner's lead by the predictions that are kept of both trials' best epochs.

    Where trials are in parts, it is told by the accuracies of the parts that both came through. None where there is no
    second trial with a result, the predictions of either are gone or of other photographs, or there are fewer than two
    such parts.
    """
    best = best_first(study)[:2]
    if len(best) < 2:
        return None
    if PART_EPOCHS in study.user_attrs:
        return _lead_over_parts(best[1].number, *(trial_folder(search_dir, trial.number) for trial in best))
    winner, second = (read_judged(trial_folder(search_dir, trial.number) / PREDICTIONS) or [] for trial in best)
    found, goal = on_same_photographs(winner, second), study_goal(study)
    worth = "" if goal.is_accuracy else goal.named(best_value(best[1]))
    return None if found is None else Lead(best[1].number, found, worth)


def _lead_over_parts(runner_up: int, winner: Path, second: Path) -> LeadOverParts | None:
    of_parts = [best_of_parts(read_metrics(folder)) for folder in (winner, second)]
    goal = goal_of(of_parts[0])
    ours, theirs = ([goal.rank_of(line) for line in lines] for lines in of_parts)
    count = min(len(ours), len(theirs))
    judged = read_judged(network_folder(winner) / PREDICTIONS)
    if not judged:
        return None
    bound = 1.0 if goal.is_share else math.inf
    found = compare(ours[:count], theirs[:count], goal.step(len(judged)), bound=bound)
    return None if found is None else LeadOverParts(runner_up, found, goal)
