"""What TensorBoard shows of a run: a point per epoch of every metric, in groups. Needs no TensorFlow."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from tune_cropshield.training.metrics import EpochMetrics
from tune_cropshield.training.run_folder import is_part

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

# The group of each metric but `epoch`, which is the step of the others. In files and tables metrics have plain names.
GROUPS = {
    "validation": ("val_acc", "val_loss", "val_macro_f1", "val_balanced_acc", "val_auc"),
    "training": ("train_loss", "lr", "updates", "skipped_steps", "loss_scale"),
    "clipping": ("clip_rate", "grad_norm_p50", "grad_norm_p95"),
    "speed": ("images_per_s", "data_wait_s", "epoch_s", "peak_vram_mib"),
}
GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}
# The best epoch's figures that are scalars of their own: best_epoch, best_val_acc, ...
OF_BEST_EPOCH = ("epoch", *GROUPS["validation"], "train_loss")
EVENT_FILES = "events.out.tfevents.*"
STAMP = re.compile(r"events\.out\.tfevents\.(\d{10})\.")


def tag_of(name: str) -> str:
    """Returns the name of a metric in TensorBoard, with its group before it: "validation/val_acc".

    The best epoch's figures stand beside their own; its number with the validation that has chosen it.
    """
    return f"{GROUP_OF.get(name.removeprefix('best_'), 'validation')}/{name}"


def events_folder(run_dir: Path) -> Path:
    """Returns where the TensorBoard events of a run lie, which is what TensorBoard calls the run by.

    A search makes a sub-folder for them whose name says the setting. Otherwise, and in searches of earlier versions, it
    is the run's own folder. Those of a trial's part lie below the trial's.
    """
    if is_part(run_dir):
        return events_folder(run_dir.parent) / run_dir.name
    if next(run_dir.glob(EVENT_FILES), None) is not None:
        return run_dir
    found = (path.parent for path in run_dir.glob(f"*/{EVENT_FILES}"))
    return next((folder for folder in found if not is_part(folder)), run_dir)


class ScalarEvents:
    """TensorBoard scalars of one run, under the metrics' names with their group (`tag_of`).

    folder: where they are written; see `events_folder`. first_epoch: 1, or the epoch a resumed run goes on with:
    TensorBoard forgets points from there on that a killed run had written.
    """

    def __init__(self, folder: Path, first_epoch: int = 1) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = RecordWriter(next_file(folder, "scalars").open("xb"))
        start = SessionLog(status=SessionLog.START)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(step=first_epoch, wall_time=time.time(), session_log=start))
        self._writer.flush()

    def add(
        self,
        metrics: EpochMetrics,
        best: Mapping[str, float | int],
        learning_rates: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Writes one point per metric at step `epoch` and makes it visible at once.

        learning_rates: those of parts of the network, by name, beside the head's.

        best: the metrics of the best epoch so far. They become `best_epoch`, `best_val_acc` and the like: tables of
        runs, as TensorBoard's HParams tab, show a scalar's last point, and the last epoch is not the best.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        names = dict.fromkeys([*OF_BEST_EPOCH, metrics.goal.name])
        values = metrics.as_dict() | {f"best_{name}": best[name] for name in names if name in best}
        step = int(values.pop("epoch"))
        tags = {tag_of(name): value for name, value in values.items()}
        tags |= {f"{GROUP_OF['lr']}/{name}": value for name, value in learning_rates.items()}
        scalars = [Summary.Value(tag=tag, simple_value=float(value)) for tag, value in tags.items()]
        self._write(Event(step=step, wall_time=time.time(), summary=Summary(value=scalars)))
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()

    def _write(self, event: Event) -> None:
        self._writer.write(event.SerializeToString())


def next_file(folder: Path, kind: str) -> Path:
    """Returns a path for an event file that sorts after the folder's other ones; kind is the last part of its name.

    TensorBoard reads a folder's files in the order of their names, which begin with the second in which they were made,
    and never goes back. What goes on within the same second, or after the clock was set back, must come later all the
    same.
    """
    stamps = [int(found[1]) for path in folder.glob(EVENT_FILES) if (found := STAMP.match(path.name))]
    return folder / f"events.out.tfevents.{max([int(time.time()), *(stamp + 1 for stamp in stamps)]):010d}.{kind}"
