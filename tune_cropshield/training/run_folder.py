"""The files of one run.

config.toml, metrics.jsonl, TensorBoard events, the last checkpoints, and the best epoch's weights.

A trial that is several trainings (see `parts`) has a run's folder for each: part0, part1, ... Its own metrics.jsonl
then holds the epochs of all of them, one after another: `epoch` counts on over the parts, `part` says which it is, and
`part_ended` is true in each part's last line.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.goals import goal_of
from tune_cropshield.errors import UserError
from tune_cropshield.files import append_line, raising_disk_full, write_text_atomically
from tune_cropshield.training.predictions import PREDICTIONS, Judged, write_judged

if TYPE_CHECKING:  # torch, safetensors and TensorBoard take seconds to import: only those who train need them
    from torch import Tensor

CONFIG = "config.toml"
METRICS = "metrics.jsonl"  # a line per epoch
EVENTS = "events.jsonl"  # what else happened: memory that ran out, fp16 that was given up, a damaged checkpoint
CHECKPOINT = "last.pt"
CHECKPOINT_BEFORE = "previous.pt"  # the one before, in case the last is damaged
WEIGHTS = "model.safetensors"  # of the best epoch
WEIGHTS_DIGEST = "model.sha256"  # of that file, as `sha256sum --check` reads it
BEST_METRICS = "metrics.json"  # the best epoch's
CLASSES = "classes.json"
PART = "part"  # of a line of such a trial's metrics.jsonl; and the beginning of the names of its parts' folders
PART_ENDED = "part_ended"
PREPARATION = "preparation.json"  # how a photograph becomes what the network is judged on


class RunFolder:
    """Reads and writes the files of one run under `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def checkpoint(self) -> tuple[dict[str, Any] | None, list[str]]:
        """Returns the last checkpoint that is whole, None when there is none, and what is wrong with those after it.

        Raises RunFailure for a checkpoint of another version.
        """
        from tune_cropshield.training.checkpoint import DamagedCheckpoint, load_checkpoint

        damage: list[str] = []
        for name in (CHECKPOINT, CHECKPOINT_BEFORE):
            try:
                return load_checkpoint(self.path / name), damage
            except FileNotFoundError:
                pass
            except DamagedCheckpoint as error:
                damage.append(str(error))
        return None, damage

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Makes `state` the last checkpoint; the one before stays too, until `drop_checkpoints`."""
        from tune_cropshield.training.checkpoint import save_checkpoint

        save_checkpoint(self.path / CHECKPOINT, state, keep_as=self.path / CHECKPOINT_BEFORE)

    @property
    def checkpoint_bytes(self) -> int:
        """The size of the checkpoints."""
        paths = [self.path / name for name in (CHECKPOINT, CHECKPOINT_BEFORE)]
        return sum(path.stat().st_size for path in paths if path.exists())

    def drop_checkpoints(self) -> None:
        """Deletes the checkpoints: nobody goes on with this run."""
        for name in (CHECKPOINT, CHECKPOINT_BEFORE):
            (self.path / name).unlink(missing_ok=True)

    def metrics(self) -> list[dict[str, Any]]:
        """Returns the epochs written so far; a last line that a kill cut short is passed over."""
        return read_metrics(self.path)

    def keep_metrics_until(self, epoch: int) -> None:
        """Drops the lines of epochs after `epoch`: they are trained again."""
        kept = [line for line in self.metrics() if line["epoch"] <= epoch]
        write_text_atomically(self.path / METRICS, "".join(json.dumps(line) + "\n" for line in kept))

    def add_metrics(self, metrics: dict[str, Any]) -> None:
        """Appends an epoch's line."""
        append_line(self.path / METRICS, json.dumps(metrics))

    def add_event(self, event: dict[str, Any]) -> None:
        """Appends a line to the events."""
        append_line(self.path / EVENTS, json.dumps(event))

    def save_best(
        self,
        weights: dict[str, Tensor],
        predictions: Sequence[Judged],
        metrics: dict[str, Any],
        classes: tuple[str, ...],
    ) -> None:
        """Writes what is kept of the best epoch, and the classes' names.

        That is: its weights (torchvision's names, no pickle), their digest, its predictions and metrics.
        """
        digest = write_weights(self.path / WEIGHTS, weights)
        write_text_atomically(self.path / WEIGHTS_DIGEST, f"{digest}  {WEIGHTS}\n")
        write_judged(self.path / PREDICTIONS, predictions)
        write_json(self.path / BEST_METRICS, metrics)
        if not (self.path / CLASSES).exists():
            write_json(self.path / CLASSES, list(classes))


def has_checkpoint(run_dir: Path) -> bool:
    """Tells whether a training, or a part of it, can go on after the epoch of a checkpoint."""
    return any(RunFolder(folder).checkpoint_bytes for folder in (run_dir, *part_folders(run_dir)))


def read_digest(run_dir: Path) -> str | None:
    """Returns the SHA-256 (hex) of a run's best weights, None before its first epoch."""
    try:
        return (run_dir / WEIGHTS_DIGEST).read_text(encoding="utf-8").split()[0]
    except FileNotFoundError:
        return None


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl, none when there is no file; half a line at its end is passed over."""
    return read_lines(run_dir / METRICS)


def part_folder(run_dir: Path, part: int) -> Path:
    """Returns the folder of a trial's part, counted from 0."""
    return run_dir / f"{PART}{part}"


def part_folders(run_dir: Path) -> list[Path]:
    """Returns the folders of a trial's parts that there are, in their order; none of a run without parts."""
    numbers = sorted(int(path.name[len(PART) :]) for path in run_dir.glob(f"{PART}[0-9]*") if is_part(path))
    return [part_folder(run_dir, number) for number in numbers]


def is_part(run_dir: Path) -> bool:
    """Tells whether a folder is that of a trial's part."""
    return re.fullmatch(rf"{PART}\d+", run_dir.name) is not None


def network_folder(run_dir: Path) -> Path:
    """Returns where the weights and predictions of a run lie that are kept: in its own folder.

    Of a trial in parts, in that of its best part.
    """
    if not part_folders(run_dir):
        return run_dir
    best = best_epoch(read_metrics(run_dir))
    return run_dir if best is None or PART not in best else part_folder(run_dir, best[PART])


def best_of_parts(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the best epoch's line of each part that has ended; while the first one runs, its best so far.

    Of a run without parts, it is that of the run; none before the first epoch.
    """
    found: list[dict[str, Any]] = []
    goal = goal_of(lines)
    for _, of_part in groupby(lines, key=lambda line: line.get(PART, 0)):
        epochs = list(of_part)
        if not found or epochs[-1][PART_ENDED]:
            found.append(max(epochs, key=goal.rank_of))  # of equals, max takes the first
    return found


def spread_of_parts(lines: Sequence[dict[str, Any]]) -> float | None:
    """Returns the standard deviation of the best values of the parts that have ended; None of fewer than two."""
    values = [goal_of(lines).value(line) for line in best_of_parts(lines)]
    return stdev(values) if len(values) > 1 else None


def best_epoch(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the metrics of a run's best epoch: the first one that no other is better than by the run's goal.

    None before the first epoch. One whose value is not finite is never better. The kept weights, the pruning, the
    tables and the report all mean this epoch. Of a trial in parts, the metrics are the means over its `best_of_parts`;
    `epoch`, `updates` and `part` are those of the best of these, the first of equals, whose weights are kept.

    Args:
        lines: metrics of epochs as `read_metrics` returns them, in the order in which they were trained.
    """
    parts, goal = best_of_parts(lines), goal_of(lines)
    best = max(parts, key=goal.rank_of, default=None)
    if best is None or PART not in best:
        return best
    # What every part knows: an earlier version, which knew fewer metrics, may have trained the first ones.
    told = set[str].intersection(*map(set, parts)) - {PART, PART_ENDED, *goal.marks()}
    means = {name: fmean(line[name] for line in parts) for name in best if name in told}
    return {**means, **goal.marks(), "epoch": best["epoch"], "updates": best["updates"], PART: best[PART]}


def best_so_far(lines: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Returns {epoch: what the run was worth after it}, in the order of `lines`: its goal's best value up to then.

    NaN where no epoch has had a finite one. Of a trial in parts, it is that of the first part while that one runs; from
    its end on, the mean over the parts that have ended by then. So it changes at a part's end only, and may fall there.
    """
    ended: list[float] = []
    goal = goal_of(lines)
    values: dict[int, float] = {}
    for _, of_part in groupby(lines, key=lambda line: line.get(PART, 0)):
        epochs = list(of_part)
        best = math.nan
        for line in epochs:
            best = max(best, goal.value(line), key=goal.rank)
            if line.get(PART_ENDED):
                ended.append(best)
            values[line["epoch"]] = fmean(ended) if ended else best
    return values


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's events.jsonl, and of its parts', none when nothing happened.

    A resumed run may have met the same twice.
    """
    return [line for folder in (run_dir, *part_folders(run_dir)) for line in read_lines(folder / EVENTS)]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the objects of a file with one on each line, none when there is no file; half a last line is no line.

    Raises UserError for a line that is damaged.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            found += [json.loads(line)] if line else []
        except ValueError as error:
            raise UserError(f"{path}: line {number} is damaged ({error})") from None
    return found


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, aside and renamed."""
    write_text_atomically(path, json.dumps(value, indent=2) + "\n")


def write_weights(path: Path, weights: dict[str, Tensor]) -> str:
    """Writes named tensors as safetensors, aside and renamed, and returns the file's SHA-256 (hex).

    Raises DiskFull when the disk is full.

    It takes twice the file's size in memory meanwhile.
    """
    from safetensors.numpy import save  # of PyTorch's tensors, one by one, it takes five times as long

    content = save({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in weights.items()})
    aside = path.with_name(f".{path.name}.tmp")
    try:
        with raising_disk_full(path), ThreadPoolExecutor(1) as pool:
            digest = pool.submit(hashlib.sha256, content)
            aside.write_bytes(content)
            aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return digest.result().hexdigest()
