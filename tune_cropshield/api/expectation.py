"""What a search would find in its photographs, and about what disk space and time it would take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.config.reference import ends_reference
from tune_cropshield.config.space import SearchSettings, SearchSpace
from tune_cropshield.config.units import MIB, describe_seconds
from tune_cropshield.outcome import words

if TYPE_CHECKING:  # PyTorch takes seconds to import: a faulty space is told about before
    from tune_cropshield.data.folder import ImageFolder
    from tune_cropshield.data.split import Split
    from tune_cropshield.memory.choose.pairs import Pair
    from tune_cropshield.search.resources import Resources

STEPS_TIMED = 3
# Of the weights' size: a checkpoint holds them, AdamW's two averages, the average of the weights where there is one,
# and the checkpoint before is kept.
CHECKPOINTS_OVER_WEIGHTS = 8


@dataclass(frozen=True)
class Expectation:
    """What a search would find and take.

    photographs: how many, in words. remarks: on them, as a search makes them before its first trial. disk, time: a
    sentence each.
    """

    photographs: str
    remarks: list[str]
    disk: str
    time: str


def expect(space: SearchSpace, resources: Resources, pair: Pair, cache_dir: Path) -> Expectation:
    """Returns what to expect of a search of `space`. Files are read, but no photograph is decoded.

    pair: of the trial whose steps are timed.

    Raises DataError where a search could not train on the photographs.
    """
    from tune_cropshield.config.settings import RunConfig
    from tune_cropshield.data.dataset import split_photographs
    from tune_cropshield.data.folder import scan_folder
    from tune_cropshield.data.remarks import remarks_before_decoding
    from tune_cropshield.search.prepare import used_photographs

    config = space.data
    folder = scan_folder(Path(config.dir), cache_dir / "digests.json", config.class_depth, config.merge)
    labels, digests = [file.label for file in folder.files], [file.digest for file in folder.files]
    given = [file.side for file in folder.files if file.side is not None]
    parts = space.search.parts_of(RunConfig(data=config, trial=space.trial_config()))
    splits = [split_photographs(part.data, folder.classes, labels, digests, given) for part in parts]
    return Expectation(
        f"{len(folder.files)} photographs, {len(folder.classes)} classes: {used_photographs(splits, space)} (fewer "
        "where some cannot be read, which shows when a search decodes them)",
        remarks_before_decoding(folder, splits[0], space.fits),
        _disk(space, resources, folder),
        _time(space, resources, pair, splits[0]),
    )


def _disk(space: SearchSpace, resources: Resources, folder: ImageFolder) -> str:
    """Returns what a search would write: decoded photographs, the best trials' weights, checkpoints."""
    from tune_cropshield.data.near_copies import THUMBNAIL_SIDE
    from tune_cropshield.data.preparation import Preparation
    from tune_cropshield.search.folder import CHECKPOINTS_BUDGET_BYTES, WEIGHTS_BUDGET_BYTES
    from tune_cropshield.training.models import build_model

    trial = space.trial_config()
    sizes = {trial.image_size, *trial.progressive_sizes.values()}
    sides = [Preparation(size, fit).store_side for size in sizes for fit in space.fits]
    store = len(folder.files) * 3 * sum(side**2 + THUMBNAIL_SIDE**2 for side in sides)
    model = build_model(trial.model, len(folder.classes), dropout=trial.dropout)
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    kept = min(space.search.trials * weights, max(WEIGHTS_BUDGET_BYTES, weights))
    parts = 1 if space.search.num_parts > 1 else 0  # the best part's weights lie beside those of the part under way
    running = resources.concurrent_trials * (CHECKPOINTS_OVER_WEIGHTS + parts) * weights
    stopped = min(space.search.trials * CHECKPOINTS_OVER_WEIGHTS * weights, CHECKPOINTS_BUDGET_BYTES)
    stopped = stopped if space.search.pruning != "none" else 0
    return (
        f"disk: {_size(store)} for decoded photographs in the cache folder, once for all searches; at most about "
        f"{_size(kept + running + stopped)} in the search's folder, for the best trials' weights ({_size(weights)} "
        "each) and the checkpoints of those that run or may be gone on with"
    )


def _time(space: SearchSpace, resources: Resources, pair: Pair, split: Split) -> str:
    """Returns how long the training steps would take, by steps that are timed now."""
    try:
        rate, how = _images_per_s(space, resources, pair)
    except RuntimeError as error:  # no memory left beside other programs
        return f"time: not known, as a training step could not be timed ({' '.join(str(error).split())})"
    search = space.search
    most, least = search.trials * search.trial_epochs, _epochs_when_pruned(search)
    concurrent = resources.concurrent_trials
    seconds = len(split.train) / rate / concurrent
    at_once = f", and {concurrent} trials at once taken as so many times as fast" if concurrent > 1 else ""
    pruned = f"; {_about(least * seconds)} if pruning goes by its rule" if least < most else ""
    return (
        f"time: {_about(most * seconds)} for {words.counted(most, 'epoch')} if no trial is pruned{pruned}. This is "
        f"an estimate from {words.number(rate)} images/s of {how}{at_once}; start-up, decoding and validation come on "
        "top"
    )


def _images_per_s(space: SearchSpace, resources: Resources, pair: Pair) -> tuple[float, str]:
    """Returns the speed of plain training steps on random images, timed on the device, and what was timed."""
    import statistics

    import torch

    from tune_cropshield.doctor.plain_step import PlainStep, StepSettings
    from tune_cropshield.memory.measure.step_driver import seconds_of
    from tune_cropshield.training.precision import resolve_precision

    trial, device = space.trial_config(), torch.device(resources.device)
    precision = resolve_precision(trial.precision, device)
    threads = torch.get_num_threads()
    torch.set_num_threads(resources.threads)
    try:
        settings = StepSettings(
            trial.model, trial.image_size, precision, trial.channels_last, pair.micro_batch, pair.accumulation
        )
        step = PlainStep(settings, device)
        step.window()
        seconds = statistics.median(seconds_of(step.window, device) for _ in range(STEPS_TIMED))
    finally:
        torch.set_num_threads(threads)
    graphs = ", without the CUDA graphs of a trial" if device.type == "cuda" else ""
    how = f"{STEPS_TIMED} plain steps of {pair}, timed now on this {device.type} in {precision}{graphs}"
    return step.images_per_window / seconds, how


def _epochs_when_pruned(search: SearchSettings) -> int:
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


def _size(count: float) -> str:
    return f"{count / 1024 / MIB:.1f} GiB" if count >= 1024 * MIB else f"{math.ceil(count / MIB)} MiB"


def _about(seconds: float) -> str:
    return f"about {describe_seconds(max(seconds, 1))}"
