"""What a search would find in its photographs, and about what disk space and time it would take."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.config.reference import ends_reference
from tune_cropshield.config.space import SearchSettings, SearchSpace
from tune_cropshield.config.units import describe_bytes, describe_seconds, parse_duration
from tune_cropshield.outcome import words

if TYPE_CHECKING:  # PyTorch takes seconds to import: a faulty space is told about before
    from tune_cropshield.config.settings import TrialConfig
    from tune_cropshield.data.folder import ImageFolder
    from tune_cropshield.data.split import Split
    from tune_cropshield.memory.choose.pairs import Pair
    from tune_cropshield.search.prepare import Prepared
    from tune_cropshield.search.resources import Resources
    from tune_cropshield.search.time_budget import TimeBudget

STEPS_TIMED = 3
LONGEST_STEP_S = 0.5  # that is timed as it is
MOST_TRIALS = 200  # that a time is filled with: as many as the sampler models
# Of the weights' size: a checkpoint holds them, AdamW's two averages, the average of the weights where there is one,
# and the checkpoint before is kept.
CHECKPOINTS_OVER_WEIGHTS = 8


@dataclass(frozen=True)
class Expectation:
    """What a search would find and take.

    photographs: how many, in words. remarks: on them, as a search makes them before its first trial. disk, time: a
    sentence each. shares: what the time budget is for, where there is one. space: with as many trials as its time
    budget holds, where that was asked for.
    """

    photographs: str
    remarks: list[str]
    disk: str
    time: str
    shares: str | None
    space: SearchSpace


def expect(
    space: SearchSpace,
    resources: Resources,
    timed: Sequence[tuple[SearchSpace, Pair]],
    cache_dir: Path,
    *,
    by_time: bool = False,
) -> Expectation:
    """Returns what to expect of a search of `space`. Files are read, but no photograph is decoded.

    Args:
        timed: the spaces of the families of `space`, each with the pair of the trial whose steps are timed.
        by_time: as many trials are searched as the time budget holds, where there is one.

    Raises DataError where a search could not train on the photographs, ConfigError where a loss or a
    metric of the user's own does not fit them.
    """
    from tune_cropshield.config.settings import RunConfig
    from tune_cropshield.data.dataset import folded, given_folds, split_together
    from tune_cropshield.data.groups import grouping_of
    from tune_cropshield.data.remarks import remarks_before_decoding, to_beat
    from tune_cropshield.data.sources import scan_photographs
    from tune_cropshield.search.prepare import check_losses, used_photographs
    from tune_cropshield.search.time_budget import TimeBudget
    from tune_cropshield.training.own_metric import check_own_metric

    config = space.data
    folder = scan_photographs(config, cache_dir / "digests.json")
    labels, digests = [file.label for file in folder.files], [file.digest for file in folder.files]
    given = [file.side for file in folder.files if file.side is not None]
    parts = space.search.parts_of(RunConfig(data=config, trial=space.trial_config()))
    paths = [file.path for file in folder.files]
    found, dealt = grouping_of(config.group, paths, folder.layout, digests, [], folder.said), given_folds(folder, paths)
    keys, split = split_together(config, folder.classes, labels, digests, found, given, space.search.folds, dealt)
    splits = [folded(part.data, split, folder.classes, labels, keys, given, dealt) for part in parts]
    for one, _ in timed:
        check_losses(one, len(folder.classes))
    check_own_metric(space.search.metric, [labels[index] for index in split.val], len(folder.classes))
    try:
        families = _of_other_speed(timed)
        speeds = [images_per_s(one, resources, pair) for one, pair in families]
        epoch_s: float | None = mean_epoch_s([images_of_epoch(splits[0]) / rate for rate, _ in speeds])
        how = speeds[0][1]
        if len(families) > 1:
            trials = [one.trial_config() for one, _ in families]
            named = zip(trials, speeds, strict=True)
            each = ", ".join(f"{one.model} at {one.image_size} px {words.number(rate)}" for one, (rate, _) in named)
            several = f"plain steps of {len(families)} networks and sizes"
            how = f"{several}, timed now on this {resources.device} ({each} images/s)"
    except RuntimeError as error:  # no memory left beside other programs
        epoch_s, how = None, " ".join(str(error).split())
    budget = None
    if space.search.time_budget:
        total_s = parse_duration(space.search.time_budget)
        budget = TimeBudget(total_s, time.monotonic(), finish=space.search.finishes)
    if by_time and budget is not None:
        space = with_trials_within(space, budget, epoch_s, resources.concurrent_trials)
    beat = to_beat(splits[0], folder.classes, labels)
    return Expectation(
        f"{len(folder.files)} photographs, {len(folder.classes)} classes: {used_photographs(splits, space)} (fewer "
        f"where some cannot be read, which shows when a search decodes them); {beat}",
        remarks_before_decoding(folder, splits[0], space.fits, keys, found, space.search.folds),
        _disk(space, resources, folder),
        _time(space.search, epoch_s, resources.concurrent_trials, how),
        budget.shares() if budget is not None else None,
        space,
    )


def _disk(space: SearchSpace, resources: Resources, folder: ImageFolder) -> str:
    """Returns what a search would write: decoded photographs, the best trials' weights, checkpoints."""
    from tune_cropshield.data.near_copies import THUMBNAIL_SIDE
    from tune_cropshield.data.preparation import Preparation

    sides = [Preparation(size, fit).store_side for size in space.image_sizes for fit in space.fits]
    store = len(folder.files) * 3 * sum(side**2 + THUMBNAIL_SIDE**2 for side in sides)
    weights = most_weights_bytes(space, len(folder.classes))
    return (
        f"disk: {describe_bytes(store)} for decoded photographs in the cache folder, once for all searches; at most "
        f"about {describe_bytes(folder_bytes(space.search, resources.concurrent_trials, weights))} in the search's "
        f"folder, for the best trials' weights ({describe_bytes(weights)} each) and the checkpoints of those that run "
        "or may continue"
    )


def _of_other_speed(timed: Sequence[tuple[SearchSpace, Pair]]) -> list[tuple[SearchSpace, Pair]]:
    """Returns one of each network and image size: another optimizer hardly changes the speed."""
    found: dict[tuple[str, int], tuple[SearchSpace, Pair]] = {}
    for space, pair in timed:
        trial = space.trial_config()
        found.setdefault((trial.model, trial.image_size), (space, pair))
    return list(found.values())


def mean_epoch_s(seconds: Sequence[float]) -> float:
    """Returns the mean over the networks of a search: before its first trial each is as likely as the others."""
    return sum(seconds) / len(seconds)


def most_weights_bytes(space: SearchSpace, num_classes: int) -> int:
    """Returns the size of the weights of the largest network of `space`."""
    trials = (space.narrowed(family).trial_config() for family in space.families)
    networks = {trial.model: trial for trial in trials}
    return max(weights_bytes(trial, num_classes) for trial in networks.values())


def weights_bytes(trial: TrialConfig, num_classes: int) -> int:
    """Returns the size of a network's weights."""
    from tune_cropshield.training.models import build_model

    model = build_model(trial.model, num_classes, dropout=trial.dropout, head=trial.head, image_size=trial.final_size)
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def folder_bytes(search: SearchSettings, at_once: int, weights: int) -> int:
    """Returns about what a search's folder takes at most.

    Args:
        at_once: trials that run at once.
        weights: the size of a network's weights.
    """
    from tune_cropshield.search.folder import CHECKPOINTS_BUDGET_BYTES, WEIGHTS_BUDGET_BYTES

    kept = min(search.trials * weights, max(WEIGHTS_BUDGET_BYTES, weights))
    parts = 1 if search.num_parts > 1 else 0  # the best part's weights lie beside those of the part under way
    running = at_once * (CHECKPOINTS_OVER_WEIGHTS + parts) * weights
    stopped = min(search.trials * CHECKPOINTS_OVER_WEIGHTS * weights, CHECKPOINTS_BUDGET_BYTES)
    return kept + running + (stopped if search.pruning != "none" else 0)


def _time(search: SearchSettings, epoch_s: float | None, at_once: int, how: str) -> str:
    """Returns how long a search would take. how: its epochs were timed, or why they could not be."""
    if epoch_s is None:
        return f"time: not known, as a training step could not be timed ({how})"
    most, least = search.trials * search.trial_epochs, epochs_when_pruned(search)
    seconds = epoch_s / at_once
    together = f", and {at_once} trials at once taken as so many times as fast" if at_once > 1 else ""
    pruned = f"; {_about(least * seconds)} if pruning goes by its rule" if least < most else ""
    return (
        f"time: {_about(most * seconds)} for {words.counted(most, 'epoch')} if no trial is pruned{pruned}. This is "
        f"an estimate from {how}{together}; start-up and decoding come on top"
    )


def images_of_epoch(split: Split) -> float:
    """Returns for how many trained images an epoch counts: without gradients an image costs about a third."""
    return len(split.train) + len(split.val) / 3


def images_per_s(space: SearchSpace, resources: Resources, pair: Pair) -> tuple[float, str]:
    """Returns the speed of plain training steps on random images, timed on the device, and what was timed.

    It takes a second or two: where a step of `pair` would take longer, two images at once are timed.
    """
    import statistics

    import torch

    from tune_cropshield.doctor.plain_step import PlainStep, StepSettings
    from tune_cropshield.memory.choose.pairs import Pair
    from tune_cropshield.memory.measure.step_driver import seconds_of
    from tune_cropshield.training.precision import resolve_precision

    trial, device = space.trial_config(), torch.device(resources.device)
    precision = resolve_precision(trial.precision, device)

    def step_of(timed: Pair) -> PlainStep:
        settings = StepSettings(
            trial.model, trial.image_size, precision, trial.channels_last, timed.micro_batch, timed.accumulation
        )
        return PlainStep(settings, device)

    threads = torch.get_num_threads()
    torch.set_num_threads(resources.threads)
    try:
        timed, step = Pair(2, 1), step_of(Pair(2, 1))
        seconds = seconds_of(step.window, device)
        if seconds / 2 * pair.effective_batch < LONGEST_STEP_S or device.type == "cuda":
            timed, step = pair, step_of(pair)
            step.window()
            seconds = statistics.median(seconds_of(step.window, device) for _ in range(STEPS_TIMED))
    finally:
        torch.set_num_threads(threads)
    graphs = ", without the CUDA graphs of a trial" if device.type == "cuda" else ""
    steps = f"{STEPS_TIMED} plain steps" if timed == pair else "a plain step"
    rate = step.images_per_window / seconds
    how = f"{words.number(rate)} images/s of {steps} of {timed}, timed now on this {device.type} in {precision}{graphs}"
    return rate, how


def epochs_when_pruned(search: SearchSettings) -> int:
    """Returns the epochs of all trials together when as few go on from each pruning step as its rule says.

    One does at least. The reference setting is taken to be stopped at the first step, and trained to its end at last
    where a search does so.
    """
    left, before, total = float(search.trials), 0, 0.0
    for step in (*search.pruning_steps, search.trial_epochs):
        total += left * (step - before)
        left, before = max(left / search.reduction_factor, 1.0), step
    if search.baseline and search.pruning_steps:
        left = search.trial_epochs - search.pruning_steps[0]
        total += left if ends_reference(search.trial_epochs, search.pruning_steps[0], round(total)) else 0
    return math.ceil(min(total, search.trials * search.trial_epochs))


def with_trials_within(space: SearchSpace, budget: TimeBudget, epoch_s: float | None, at_once: int) -> SearchSpace:
    """Returns `space` with about as many trials as `budget` holds from now on; MOST_TRIALS where that is not known."""
    from tune_cropshield.search.time_budget import START_UP_S

    seconds = budget.trials_end - time.monotonic() - START_UP_S
    trials = trials_within(seconds, space.search, epoch_s, at_once) if epoch_s is not None else MOST_TRIALS
    return space.model_copy(update={"search": space.search.model_copy(update={"trials": trials})})


def trials_within(seconds: float, search: SearchSettings, epoch_s: float, at_once: int) -> int:
    """Returns how many trials take about `seconds`: as many as run at once at least, and at most MOST_TRIALS.

    Args:
        epoch_s: that an epoch of a trial takes.
        at_once: trials that run at once.
    """
    counts = range(at_once + 1, MOST_TRIALS + 1)
    taken = ((count, epochs_when_pruned(search.model_copy(update={"trials": count}))) for count in counts)
    return max((count for count, epochs in taken if epochs * epoch_s / at_once <= seconds), default=at_once)


def told_before(prepared: Prepared, budget: TimeBudget | None) -> tuple[SearchSpace, str]:
    """Returns the space with as many trials as `budget` holds, and the line on time and disk before the first trial.

    budget: None leaves the trials as they are.
    """
    space, at_once = prepared.space, prepared.resources.concurrent_trials
    try:
        epoch_s = epoch_seconds(prepared)
    except RuntimeError:  # no memory left beside other programs; a trial will say so
        epoch_s = None
    if budget is not None:
        space = with_trials_within(space, budget, epoch_s, at_once)
    weights = most_weights_bytes(space, len(prepared.data.classes))
    return space, estimate_line(space.search, epoch_s, at_once, weights)


def epoch_seconds(prepared: Prepared) -> float | None:
    """Returns about how long an epoch of a trial takes, in the mean over the search's networks and image sizes.

    On a GPU by what was measured for the plan; None where nothing was. On a CPU a few updates of a trial are timed now,
    or where these take long, a plain step.
    """
    space, plan = prepared.space, prepared.plan
    timed = []
    for family in space.families:
        own = plan.of(family)
        timed.append((space.narrowed(family), own.best(own.effective_batches[0])))
    found = [_epoch_seconds_of(one, pair, prepared) for one, pair in _of_other_speed(timed)]
    known = [seconds for seconds in found if seconds is not None]
    return mean_epoch_s(known) if len(known) == len(found) else None


def _epoch_seconds_of(space: SearchSpace, pair: Pair, prepared: Prepared) -> float | None:
    """Returns about how long an epoch of a trial with this pair takes in `space`, of one family."""
    import torch

    from tune_cropshield.config.settings import RunConfig
    from tune_cropshield.data.dataset import DeviceData
    from tune_cropshield.training.fitted import timed_epoch_s

    split = prepared.data.split
    if prepared.resources.device == "cuda":
        figures = prepared.plan.of(space.trial).figures.get(pair)
        return images_of_epoch(split) / figures.images_per_s if figures is not None and figures.images_per_s else None
    rate, _ = images_per_s(space, prepared.resources, pair)
    if pair.effective_batch / rate > LONGEST_STEP_S:
        return images_of_epoch(split) / rate
    own = {"effective_batch": pair.effective_batch, "micro_batch": pair.micro_batch, "accumulation": pair.accumulation}
    trial = space.trial_config({**own, "threads": prepared.resources.threads})
    threads = torch.get_num_threads()
    try:
        return timed_epoch_s(RunConfig(data=space.data, trial=trial), DeviceData(prepared.data, torch.device("cpu")))
    except Exception:  # a user's own code, or a loss that is not finite: trials will say what is wrong
        return images_of_epoch(split) / rate
    finally:
        torch.set_num_threads(threads)


def estimate_line(search: SearchSettings, epoch_s: float | None, at_once: int, weights: int) -> str:
    """Returns what a search takes of time and disk, as it is told before its first trial.

    Args:
        epoch_s: that an epoch of a trial takes; None where it is not known.
        at_once: trials that run at once.
        weights: the size of a network's weights.
    """
    trials = words.counted(search.trials, "trial")
    disk = f"at most about {describe_bytes(folder_bytes(search, at_once, weights))} of disk"
    budget = parse_duration(search.time_budget) if search.time_budget else None
    ends = f", it ends after {describe_seconds(budget)} at the latest" if budget is not None else ""
    if epoch_s is None:
        return f"estimate: {disk} for {trials}{ends}; how long they take is known after the first epochs"
    from tune_cropshield.search.time_budget import START_UP_S

    pruned, most = epochs_when_pruned(search), search.trials * search.trial_epochs
    least_s, most_s = (START_UP_S + epochs * epoch_s / at_once for epochs in (pruned, most))
    worst = f" ({_about(most_s).removeprefix('about ')} if none is pruned)" if pruned < most else ""
    more = "" if search.time_budget else "; --trials N or --time-budget 2h sets another length"
    return f"estimate: {_about(least_s)} for {trials}{worst}{ends}, and {disk}{more}"


def _about(seconds: float) -> str:
    return f"about {describe_seconds(max(seconds, 1))}"
