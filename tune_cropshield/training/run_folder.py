"""The files of one run.

config.toml, metrics.jsonl, TensorBoard events, the last checkpoints, and the best epoch's weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.files import append_line, raising_disk_full, write_text_atomically
from tune_cropshield.training.metrics import EpochMetrics
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

    def add_metrics(self, metrics: EpochMetrics) -> None:
        """Appends an epoch's line."""
        append_line(self.path / METRICS, json.dumps(metrics.as_dict()))

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


def read_digest(run_dir: Path) -> str | None:
    """Returns the SHA-256 (hex) of a run's best weights, None before its first epoch."""
    try:
        return (run_dir / WEIGHTS_DIGEST).read_text(encoding="utf-8").split()[0]
    except FileNotFoundError:
        return None


def read_metrics(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's metrics.jsonl, none when there is no file; half a line at its end is passed over."""
    return _read_lines(run_dir / METRICS)


def best_epoch(lines: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the metrics of a run's best epoch: the first one with the highest val_acc. None before the first epoch.

    The kept weights, the pruning, the tables and the report all mean this epoch.

    Args:
        lines: metrics of epochs as `read_metrics` returns them, in the order in which they were trained.
    """
    return max(lines, key=lambda line: line["val_acc"], default=None)  # of equals, max takes the first


def best_so_far(lines: Sequence[dict[str, Any]]) -> dict[int, float]:
    """Returns {epoch: the highest val_acc up to and including it}, in the order of `lines` (see `best_epoch`)."""
    highest = accumulate((line["val_acc"] for line in lines), max)
    return {line["epoch"]: value for line, value in zip(lines, highest, strict=True)}


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a run's events.jsonl, none when nothing happened.

    A resumed run may have met the same twice.
    """
    return _read_lines(run_dir / EVENTS)


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines[:-1] if line]


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
