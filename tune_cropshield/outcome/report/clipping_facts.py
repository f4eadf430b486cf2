"""What clipping did in each trial of a search, and what that amounts to in plain words. Numbers in, sentences out."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tune_cropshield.config.goals import Goal
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.training.run_folder import best_so_far

KINDS = ("max_norm", "clip_value", "agc")
NONE = "none"
IDLE = 0.02  # a bound that changes fewer updates than this does nothing
ALWAYS = 0.9  # one that changes more than this is below nearly every gradient
FEWEST = 3  # trials of a bound, to be compared with another
CHANCE = 0.05


@dataclass(frozen=True)
class ClippedTrial:
    """A trial's clipping.

    bound: "none" or a number. Norms are before clipping, medians over the epochs; NaN where no update was applied.
    """

    bound: float | str
    clip_rate: float  # mean over the epochs of the share of updates that clipping changed
    norm_p50: float
    norm_p95: float
    skipped_steps: int
    goal: Goal
    value: float  # the goal's best
    values: Mapping[int, float]  # {epoch: best so far}
    trial: TrialRecord


def clipping_kind(record: SearchRecord) -> str:
    """Returns the setting that bounds the gradients in this search.

    It is the first that is on in some trial, else max_norm.
    """
    return next(
        (kind for kind in KINDS if any(trial.setting(kind) not in (None, NONE) for trial in record.trials)), KINDS[0]
    )


def clipped_trials(record: SearchRecord, kind: str) -> list[ClippedTrial]:
    """Returns the clipping of each trial that has a result."""
    found = []
    for trial in record.with_result:
        bound = trial.setting(kind)
        found.append(
            ClippedTrial(
                bound=NONE if bound is None else bound,
                clip_rate=statistics.fmean(line["clip_rate"] for line in trial.lines),
                norm_p50=_median([line["grad_norm_p50"] for line in trial.lines]),
                norm_p95=_median([line["grad_norm_p95"] for line in trial.lines]),
                skipped_steps=sum(line["skipped_steps"] for line in trial.lines),
                goal=record.goal,
                value=math.nan if trial.value is None else trial.value,
                values={epoch: value for epoch, value in best_so_far(trial.lines).items() if math.isfinite(value)},
                trial=trial,
            )
        )
    return found


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return statistics.median(finite) if finite else math.nan


def clipping_result(trials: Sequence[ClippedTrial], kind: str, optimizer: str) -> list[str]:
    """Returns, in plain words, what clipping did.

    Whether it did anything, whether it was only a learning-rate multiplier, and whether the goal tells.
    """
    clipped = [trial for trial in trials if trial.bound != NONE]
    if not clipped:
        return [f"No trial clipped its gradients.{_norms(trials)}"]
    rates = [trial.clip_rate for trial in clipped]
    always = [trial for trial in clipped if trial.clip_rate > ALWAYS]
    counted = words.counted(len(clipped), "trial")
    if max(rates) < IDLE:
        head = (
            f"Clipping did nothing here: no bound changed more than {words.percent(max(rates))} of a trial's updates."
        )
        return [head + _norms(trials), _compared(trials, kind)]
    if 2 * len(always) > len(clipped):
        head = (
            f"Clipping was mostly a learning-rate multiplier: in {len(always)} of the {counted} that clipped, the "
            f"bound lay below nearly every gradient (more than {words.percent(ALWAYS)} of updates were shortened)."
        )
        return [head, _multiplier(always, kind, optimizer), _compared(trials, kind)]
    idle = sum(rate < IDLE for rate in rates)
    guarding = len(clipped) - len(always) - idle
    head = (
        f"In the {counted} that clipped, {words.percent(statistics.fmean(rates))} of the updates were shortened on "
        f"average: nearly all of them in {len(always)} of the trials, hardly any in {idle}, and only those with large "
        f"gradients in {guarding}, which is what clipping is for."
    )
    return [head, *([_multiplier(always, kind, optimizer)] if always else []), _compared(trials, kind)]


def _norms(trials: Sequence[ClippedTrial]) -> str:
    medians, highs = (_median([getattr(trial, name) for trial in trials]) for name in ("norm_p50", "norm_p95"))
    if math.isnan(medians):
        return ""
    return (
        f" Half of the updates had a gradient norm below {words.number(medians)}, 95 % below {words.number(highs)} "
        "(medians over the trials)."
    )


def _multiplier(always: Sequence[ClippedTrial], kind: str, optimizer: str) -> str:
    """Says what shortening every update amounts to under this optimizer."""
    factors = [
        trial.bound / trial.norm_p50 for trial in always if isinstance(trial.bound, (int, float)) and trial.norm_p50 > 0
    ]
    if kind != "max_norm" or not factors:
        return "A bound that changes every update rescales all of them instead of limiting rare large gradients."
    factor = (
        f"{words.number(min(factors), 2)} to {words.number(max(factors), 2)}"
        if len(factors) > 1
        else words.number(factors[0], 2)
    )
    if optimizer == "sgd":
        return (
            f"There the typical update was multiplied by {factor}: with SGD this is the same as multiplying the "
            "learning rate by that factor."
        )
    return (
        f"There the typical gradient was multiplied by {factor}. AdamW divides each gradient by its running "
        "average size, so a constant factor cancels out: such a bound changes little, except that large and small "
        "updates become more alike."
    )


def _compared(trials: Sequence[ClippedTrial], kind: str) -> str:
    """Says whether the goal's values under different bounds differ by more than chance.

    They are compared at the last epoch that most trials reached.
    """
    from scipy.stats import kruskal

    epoch, goal = _common_epoch(trials), trials[0].goal
    what = goal.called
    groups: dict[object, list[float]] = defaultdict(list)
    for trial in trials:
        if epoch in trial.values:
            groups[trial.bound].append(trial.values[epoch])
    enough = {bound: values for bound, values in groups.items() if len(values) >= FEWEST}
    if len(enough) < 2:
        return (
            f"Whether {kind} changed the {what} is not known: fewer than two of its values were tried in "
            f"{FEWEST} trials or more."
        )
    equal = "accurate" if goal.is_accuracy else "good"
    if len({value for values in enough.values() for value in values}) == 1:
        return f"After epoch {epoch} all trials are equally {equal}, whatever their {kind}."
    chance = float(kruskal(*enough.values()).pvalue)
    count = sum(map(len, enough.values()))
    test = (
        f"Kruskal-Wallis {words.p_equals(chance)}, {words.counted(count, 'trial')}, best {what} up to epoch {epoch}, "
        "which they all reached"
    )
    caution = "Other settings varied too, and the sampler does not choose at random, so this is only a hint."
    if chance < CHANCE:
        best = max(enough, key=lambda bound: goal.rank(statistics.median(enough[bound])))
        return (
            f"{'Accuracy' if goal.is_accuracy else what} differs between values of {kind} by more than chance "
            f"({test}); the median is best with {kind} = {best}. {caution}"
        )
    return f"Differences in {what} between values of {kind} could be chance ({test}). {caution}"


def _common_epoch(trials: Sequence[ClippedTrial]) -> int:
    """Returns the last epoch that four in five trials reached.

    It is a fair point to compare those that were pruned with those that were not.
    """
    lasts = sorted(max(trial.values, default=0) for trial in trials)
    return lasts[len(lasts) // 5]
