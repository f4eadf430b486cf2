"""A trial in parts: one setting trained several times, on other folds or with other seeds, one after another.

Each part is a training as any other, in a folder of its own below the trial's (t003/part0, t003/part1, ...). The trial
is worth the mean of its parts' best accuracies, so that one lucky split or seed does not make it the winner.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from tune_cropshield.config.settings import RunConfig, save_config
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.errors import DivergedError
from tune_cropshield.files import raising_disk_full, remove_leftovers
from tune_cropshield.training.board import ScalarEvents, events_folder
from tune_cropshield.training.loop import CHECKPOINT_EVERY_S, TrialEnded, trial_epochs
from tune_cropshield.training.progress import TrialReport
from tune_cropshield.training.run_folder import (
    CONFIG,
    PART,
    PART_ENDED,
    WEIGHTS,
    RunFolder,
    best_epoch,
    part_folder,
)


def part_epochs(
    config: RunConfig,
    parts: Sequence[RunConfig],
    data: DeviceData,
    folder: Path,
    *,
    resume: bool = False,
    checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    checkpoint_after: Collection[int] = (),
    memory_mib: float | None = None,
    between: Callable[[], object] = lambda: None,
) -> Generator[TrialReport]:
    """Trains the parts of a trial, yielding a report after each epoch of each.

    A report is that of `trial_epochs`, but for this: epochs count on over the parts, so that part p (from 0) ends with
    epoch (p + 1) * `config.trial.epochs`, also where early stopping ends it before; `best` holds what the trial is
    worth by then (`best_epoch`), which changes only at a part's end once the first one has ended; `finished` is the
    end of the last part. The trial's folder gets `config` as config.toml, metrics.jsonl with the epochs of all parts
    and TensorBoard events of its own. Of the parts that have ended, the best one keeps its weights.

    Args:
        config: the setting, as it is trained on the whole train split.
        parts: what differs between them is the fold or the seed.
        resume: go on after the last checkpoint of the part that was under way, with the same numbers. Nothing is
            trained again of the parts before it.
        checkpoint_every_s, checkpoint_after, memory_mib: see `trial_epochs`; the epochs are the trial's.
        between: called between two parts, when nothing of the one before is in use any more.

    Raises what `trial_epochs` does.
    """
    options: dict[str, Any] = {
        "resume": resume,
        "checkpoint_every_s": checkpoint_every_s,
        "memory_mib": memory_mib,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with raising_disk_full(folder), ExitStack() as stack:
        remove_leftovers(folder)
        save_config(config, folder / CONFIG)
        run, events = RunFolder(folder), None
        lines = run.metrics() if resume else []
        earlier: TrialReport | None = None  # the last report of the part before
        for part in range(_first_part(folder, lines), len(parts)):
            _begin(folder, part)
            epochs_before = part * config.trial.epochs
            stops = [epoch - epochs_before for epoch in checkpoint_after]
            part_of_trial = trial_epochs(
                parts[part], data, part_folder(folder, part), checkpoint_after=stops, **options
            )
            with closing(part_of_trial) as reports:
                for own in _diverging_in_the_trials_epoch(reports, epochs_before):
                    epoch = epochs_before + (config.trial.epochs if own.finished else own.metrics.epoch)
                    metrics = replace(own.metrics, epoch=epoch)
                    if events is None:
                        lines = [line for line in lines if line["epoch"] < epoch]
                        run.keep_metrics_until(epoch - 1)
                        events = stack.enter_context(closing(ScalarEvents(events_folder(folder), epoch)))
                    lines.append({**metrics.line(), PART: part, PART_ENDED: own.finished})
                    run.add_metrics(lines[-1])
                    best = best_epoch(lines)
                    assert best is not None
                    events.add(metrics, best)
                    if own.finished:
                        _keep_weights_of(folder, best[PART], part)
                    report = TrialReport(
                        metrics,
                        best,
                        finished=own.finished and part == len(parts) - 1,
                        oom_retries=(earlier.oom_retries if earlier is not None else ()) + own.oom_retries,
                        notes=(earlier.notes if earlier is not None else ()) + own.notes,
                        part=part,
                    )
                    try:
                        yield report
                    except TrialEnded as ended:
                        reports.throw(ended)
            earlier = report
            if part < len(parts) - 1:
                between()


def _first_part(folder: Path, lines: Sequence[dict[str, Any]]) -> int:
    """Returns the part to go on with: the one under way, else the last that has ended.

    The end of the latter is reported again, since whoever listens may have been killed before hearing of it.
    """
    ended = sum(bool(line[PART_ENDED]) for line in lines)
    return ended if part_folder(folder, ended).exists() else max(ended - 1, 0)


def _begin(folder: Path, part: int) -> None:
    """Makes a part's folder. Whoever asks for the part has heard of the end of the one before: nobody resumes that."""
    part_folder(folder, part).mkdir(exist_ok=True)
    if part:
        RunFolder(part_folder(folder, part - 1)).drop_checkpoints()


def _keep_weights_of(folder: Path, best: int, last: int) -> None:
    """Deletes the weights of the parts up to `last` but the best one's: they would lie there for nothing."""
    for part in range(last + 1):
        if part != best:
            (part_folder(folder, part) / WEIGHTS).unlink(missing_ok=True)


def _diverging_in_the_trials_epoch(reports: Generator[TrialReport], epochs_before: int) -> Generator[TrialReport]:
    """Yields a part's reports; where it diverges, the error tells the epoch as the trial counts it."""
    try:
        yield from reports
    except DivergedError as error:
        epoch = epochs_before + error.epoch
        raise DivergedError(error.what, epoch, error.update, error.grad_norm) from error
