"""Where a trial's time goes: every second is counted to one part.

The device is waited for nowhere: parts end where a trial waits anyway.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from tune_cropshield.files import append_line
from tune_cropshield.training.run_folder import part_folders, read_lines

TIMES = "times.jsonl"  # in a trial's folder
SETUP, DATA_WAIT, STEP, EVALUATION, CHECKPOINT, REPORT = PARTS = (
    "setup",
    "data_wait",
    "step",
    "evaluation",
    "checkpoint",
    "report",
)


class TrialClock:
    """Counts a trial's seconds, from its making on, to the part it is in, and writes them to the folder's times.jsonl.

    A line is {"what", "worker" (process id), "ended" (Unix time), and the seconds of each part since the line before}.
    `what` is "setup" when the trial is ready for its first window, "epoch" after each, "end" when its files are
    written. The lines of one run leave no gap.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TIMES
        self._at, self._part = time.time(), SETUP
        self._seconds = dict.fromkeys(PARTS, 0.0)

    def enter(self, part: str) -> None:
        """Counts what follows to `part`."""
        now = time.time()
        self._seconds[self._part] += now - self._at
        self._at, self._part = now, part

    def trained(self, data_wait_s: float) -> None:
        """Ends an epoch's steps, which waited `data_wait_s` for data, and counts what follows to evaluation."""
        self.enter(EVALUATION)
        self._seconds[DATA_WAIT] += data_wait_s
        self._seconds[STEP] -= data_wait_s

    def write(self, what: str) -> None:
        """Writes a line and begins the next."""
        self.enter(self._part)
        line = {
            "what": what,
            "worker": os.getpid(),
            "ended": self._at,
            **{part: round(seconds, 6) for part, seconds in self._seconds.items()},
        }
        append_line(self._path, json.dumps(line))
        self._seconds = dict.fromkeys(PARTS, 0.0)


def read_times(run_dir: Path) -> list[dict[str, Any]]:
    """Returns the lines of a trial and of its parts, none where there are no files; half a last line is passed over."""
    return [line for folder in (run_dir, *part_folders(run_dir)) for line in read_lines(folder / TIMES)]
