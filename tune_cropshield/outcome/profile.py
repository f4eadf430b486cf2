"""Where an epoch's time goes: a trace of one epoch for chrome://tracing or Perfetto, and a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile

from tune_cropshield.training.clock import CHECKPOINT, DATA_WAIT, EVALUATION, PARTS, REPORT, STEP, read_times
from tune_cropshield.training.step import PROFILER_LABELS

TRACE = "trace.json"
PROFILED = 2  # the first epoch loads kernels and fills caches; a training of one epoch has no other


class EpochProfile:
    """Traces epoch 2 of a training that begins now (epoch 1 where there is one only).

    Tell it of every epoch's end, then ask for the table.
    """

    def __init__(self, folder: Path, epochs: int, cuda: bool) -> None:
        self._folder, self._cuda = folder, cuda
        self._epoch = min(PROFILED, epochs)
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        self._profiler = profile(activities=activities)
        self._inside: dict[str, float] = {}
        if self._epoch == 1:
            self._profiler.start()

    def epoch_ended(self, epoch: int) -> None:
        """Begins the trace after the epoch before, and writes it after its own."""
        if epoch == self._epoch:
            self._profiler.stop()
            self._profiler.export_chrome_trace(str(self._folder / TRACE))
            self._inside = self._seconds_by_label()
        elif epoch == self._epoch - 1:
            self._profiler.start()

    def _seconds_by_label(self) -> dict[str, float]:
        """Returns the seconds under each profiler label: on a GPU those in which its kernels ran, on a CPU its own."""
        events = [
            event
            for event in self._profiler.key_averages()
            if event.key in PROFILER_LABELS and event.device_type.name == "CPU"
        ]
        return {event.key: (event.device_time_total if self._cuda else event.cpu_time_total) / 1e6 for event in events}

    def table(self) -> list[str]:
        """Returns the table's lines; none when the training ended before the epoch did."""
        lines = [line for line in read_times(self._folder) if line["what"] == "epoch"]
        return (
            table(lines[self._epoch - 1], self._inside, self._epoch)
            if self._inside and len(lines) >= self._epoch
            else []
        )


def table(line: dict[str, Any], inside: dict[str, float], epoch: int) -> list[str]:
    """Returns where epoch `epoch` spent its time, the largest part first.

    Args:
        line: the epoch's line of times.jsonl.
        inside: seconds under the profiler labels of the training steps.
    """
    total = sum(line[part] for part in PARTS)
    rest = max(line[STEP] - sum(inside.values()), 0.0)
    parts = {
        "data wait": line[DATA_WAIT],
        **inside,
        "rest of the steps": rest,
        "evaluation": line[EVALUATION],
        "checkpoint": line[CHECKPOINT],
        "report": line[REPORT],
    }
    rows = [
        f"  {name:20} {seconds:8.3f} s {100 * seconds / total:5.1f} %"
        for name, seconds in sorted(parts.items(), key=lambda item: -item[1])
    ]
    return [f"epoch {epoch} took {total:.2f} s under the profiler, which slows it down:", *rows]
