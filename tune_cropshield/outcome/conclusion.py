"""The result of `confirm`: is the winner better than chance explains? In plain words, and as confirm.json."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from tune_cropshield.config.goals import Goal
from tune_cropshield.config.reference import BASELINE, FIRST_TRIAL, REFERENCE, REFERENCE_SETTING
from tune_cropshield.outcome import words
from tune_cropshield.outcome.confirm import Candidate, Conditions, ConfirmedRun
from tune_cropshield.outcome.paired import ALPHA, Comparison, compare, in_sequence
from tune_cropshield.search.endings import FINISHED
from tune_cropshield.training.run_folder import write_json

FILE = "confirm.json"
TEST = "two-sided paired t-test over seeds against {name}; p values corrected for testing several winners"
SHORT = {REFERENCE_SETTING: "reference", BASELINE: "baseline", FIRST_TRIAL: "first"}
MORE, LESS, NOISE, UNTESTED = "better", "worse", "not told apart", "not tested"  # as confirm.json has them
SHOWN = {NOISE: "could be chance"}  # what people read instead


@dataclass(frozen=True)
class Confirmed:
    """A candidate's runs, one per seed, and how they compare with the reference setting's.

    p_value: corrected for the comparisons before it (see `in_sequence`); None for the reference setting itself.
    """

    candidate: Candidate
    runs: tuple[ConfirmedRun, ...]
    comparison: Comparison | None = None
    p_value: float | None = None

    @property
    def values(self) -> list[float]:
        """The goal's best value of each run that was trained to its end."""
        return [run.value for run in self.runs if run.outcome == FINISHED and run.value is not None]

    @property
    def label(self) -> str:
        return f"t{self.candidate.trial:03d}"

    @property
    def finding(self) -> str:
        if self.comparison is None or self.p_value is None:
            return UNTESTED
        return NOISE if self.p_value >= ALPHA else MORE if self.comparison.gain > 0 else LESS


def judge(chosen: Sequence[Candidate], runs: Sequence[ConfirmedRun], num_judged: int) -> list[Confirmed]:
    """Returns the reference setting, then the others in their order, compared with it.

    Only seeds count for which both were trained to the end.

    Args:
        num_judged: photographs of the validation split; an accuracy comes in steps of one of them.
    """
    goal = chosen[0].goal
    own = {candidate.trial: tuple(run for run in runs if run.trial == candidate.trial) for candidate in chosen}
    ended = {(run.trial, run.seed): run.value for run in runs if run.outcome == FINISHED and run.value is not None}
    comparisons: list[Comparison | None] = []
    for candidate in chosen[1:]:
        seeds = [
            run.seed
            for run in own[candidate.trial]
            if (candidate.trial, run.seed) in ended and (REFERENCE, run.seed) in ended
        ]
        values, baseline = ([goal.rank(ended[trial, seed]) for seed in seeds] for trial in (candidate.trial, REFERENCE))
        comparisons.append(compare(values, baseline, goal.step(num_judged), bound=1.0 if goal.is_share else math.inf))
    in_order = iter(in_sequence([comparison.p_value for comparison in comparisons if comparison is not None]))
    judged = [Confirmed(chosen[0], own[REFERENCE])]
    for candidate, comparison in zip(chosen[1:], comparisons, strict=True):
        judged.append(
            Confirmed(candidate, own[candidate.trial], comparison, next(in_order) if comparison is not None else None)
        )
    return judged


def conclusion_lines(judged: Sequence[Confirmed], num_judged: int) -> list[str]:
    """Returns the table of means and spreads, and the conclusion, for people."""
    goal = judged[0].candidate.goal
    lines = [f"{goal.name:15}{'mean ± spread':>16}{'gain':>7}{'95 % interval':>17}{'p':>8}"]
    for number, confirmed in enumerate(judged):
        name = f"{confirmed.label} " + (SHORT[confirmed.candidate.name] if number == 0 else f"no. {number}")
        line = f"{name:15}{_spread_text(confirmed.values):>16}"
        if confirmed.comparison is not None:
            found = confirmed.comparison
            shown = SHOWN.get(confirmed.finding, confirmed.finding)
            line += f"{words.difference(goal, found.gain):>7}{_interval(found, goal):>17}"
            line += f"{words.p_value(confirmed.p_value):>8}  {shown}"
        lines.append(line)
        lines += [
            f"{'':4}seed {run.seed}: {run.outcome} ({run.reason})" for run in confirmed.runs if run.outcome != FINISHED
        ]
    unit = f"points of {goal.name}" if goal.is_share else goal.name
    one = f" (one is {words.one_in(num_judged)} points)" if goal.is_accuracy else ""
    lines.append(
        f"gains in {unit} on the same {words.counted(num_judged, 'validation photograph')}{one}; "
        f"{TEST.format(name=judged[0].candidate.name)}"
    )
    return [*lines, conclusion(judged)]


def conclusion(judged: Sequence[Confirmed]) -> str:
    """Returns in a few sentences whether the winner is better than chance explains."""
    reference, *others = judged
    name = reference.candidate.name
    tested = {confirmed.label: confirmed.comparison for confirmed in others if confirmed.comparison is not None}
    if not tested:
        return f"conclusion: none, because no candidate and {name} were both trained to the end with the same two seeds"
    winner = next(confirmed for confirmed in others if confirmed.label in tested)
    found = tested[winner.label]
    goal = reference.candidate.goal
    gained = f"{words.difference(goal, found.gain)}{' points' if goal.is_share else ''} of {goal.name}"
    size = f"{gained}, 95 % interval {_interval(found, goal)}, {_p_equals(winner)}"
    if winner.finding == MORE:
        said = f"{winner.label} is better than {name} ({size})."
    elif winner.finding == LESS:
        said = f"{winner.label} is worse than {name} ({size}): keep {name}."
    else:
        said = (
            f"{winner.label}'s difference from {name} could be chance ({size}). With {found.num_pairs} "
            "seeds that differ as much as these, "
        )
        room = 1 - fmean(reference.values) if goal.is_share else math.inf  # above the reference setting
        if found.smallest_gain_shown > room:
            said += (
                f"no gain could have been detected: it would have had to be {_unsigned(found.smallest_gain_shown)} "
                f"points, and only {_unsigned(room)} can still be gained; more seeds (--seeds) can detect one."
            )
        else:
            said += (
                f"a gain of {words.better_by(goal, found.smallest_gain_shown)} would have been detectable; more seeds "
                "(--seeds) detect smaller ones."
            )
    promised = goal.gain(winner.candidate.searched, reference.candidate.searched)
    said += f" In the search the difference was {words.difference(goal, promised)}{_pruned_there(reference, winner)}."
    highest = max(tested, key=lambda label: tested[label].gain)
    if highest != winner.label:
        gain = words.difference(goal, tested[highest].gain) + (" points" if goal.is_share else "")
        said += f" {highest} has a {'higher' if goal.is_accuracy else 'better'} mean over the seeds ({gain})."
    if lost := [confirmed for confirmed in judged if len(confirmed.values) < len(confirmed.runs)]:
        said += (
            " Some runs did not finish: "
            f"{', '.join(f'{len(each.runs) - len(each.values)} of {each.label}' for each in lost)}."
        )
    return "conclusion: " + said


def _pruned_there(*compared: Confirmed) -> str:
    """Returns which of these trials the search had stopped early, so that its accuracies compare badly; else ""."""
    told = [
        f"{each.label} was stopped early there, after {words.counted(each.candidate.pruned_after, 'epoch')}"
        for each in compared
        if each.candidate.pruned_after is not None
    ]
    return f" ({', and '.join(told)})" if told else ""


def write_conclusion(
    search_dir: Path, judged: Sequence[Confirmed], seeds: Sequence[int], num_judged: int, conditions: Conditions
) -> None:
    """Writes confirm.json: everything that `conclusion_lines` tells, for programs.

    Shares, not points: 0.01 is one point. Gains are above 0 where a trial is better, whatever the metric.
    """
    content = {
        "metric": f"best_{judged[0].candidate.goal.name}",
        "photographs": num_judged,
        "seeds": list(seeds),
        "conditions": asdict(conditions),
        "compared_with": judged[0].candidate.name,
        "test": TEST.format(name=judged[0].candidate.name),
        "alpha": ALPHA,
        "reference": _as_dict(judged[0]),
        "candidates": [_as_dict(confirmed) for confirmed in judged[1:]],
        "conclusion": conclusion(judged).removeprefix("conclusion: "),
    }
    write_json(search_dir / FILE, content)


def read_conclusion(search_dir: Path) -> dict[str, Any] | None:
    """Returns confirm.json; None where there is none, or it is damaged."""
    try:
        content: dict[str, Any] = json.loads((search_dir / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if "guide" in content:  # as earlier versions called it
        content |= {"reference": content["guide"], "conclusion": content["verdict"]}
        for each in (content["reference"], *content["candidates"]):
            each["against_reference"] = each["against_guide"]
    return content


def _as_dict(confirmed: Confirmed) -> dict[str, Any]:
    values = confirmed.values
    found = confirmed.comparison
    comparison = asdict(found) if found is not None else None
    return {
        "trial": confirmed.candidate.trial,
        f"searched_{confirmed.candidate.goal.name}": confirmed.candidate.searched,
        "mean": fmean(values) if values else None,
        "spread": stdev(values) if len(values) > 1 else None,
        "against_reference": comparison,
        "p_value": confirmed.p_value,
        "finding": confirmed.finding if comparison is not None else None,
        "runs": [asdict(run) for run in confirmed.runs],
    }


def _p_equals(confirmed: Confirmed) -> str:
    assert confirmed.p_value is not None
    return words.p_equals(confirmed.p_value)


def _unsigned(gain: float) -> str:
    return words.points(gain).removeprefix("+")


def _interval(found: Comparison, goal: Goal) -> str:
    return f"{words.difference(goal, found.low)} to {words.difference(goal, found.high)}"


def _spread_text(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{fmean(values):.4f} ± {stdev(values):.4f}" if len(values) > 1 else f"{values[0]:.4f}"
