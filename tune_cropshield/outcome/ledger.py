"""Where a search's time went: of all the seconds in which its trials could run, how many went into what.

A search that runs two trials in parallel for 10 s has 20 s: its two slots' seconds.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tune_cropshield.training.clock import CHECKPOINT, DATA_WAIT, EVALUATION, PARTS, REPORT, SETUP, STEP, read_times
from tune_cropshield.training.run_folder import write_json

LEDGER = "ledger.json"
WARM_UP_S = 60.0  # decoding, measuring, starting the workers: a search of hours does not notice it, one of minutes does
NAMES = {  # of the parts, for people
    SETUP: "start-up of trials",
    DATA_WAIT: "waiting for images",
    STEP: "training",
    EVALUATION: "evaluation",
    CHECKPOINT: "saving checkpoints",
    REPORT: "reporting to the search",
}
IDLE = "no trial running"


@dataclass(frozen=True)
class Ledger:
    """Where the time of `slots` trials at once, for `wall_s` seconds, went.

    parts: seconds of each part, all slots together; idle_s: what no trial took.
    """

    slots: int
    wall_s: float
    parts: dict[str, float]

    @property
    def idle_s(self) -> float:
        return self.slots * self.wall_s - sum(self.parts.values())

    @property
    def training_share(self) -> float:
        """The share of the slots' time that went into training steps and evaluation; 0 of no time."""
        return (self.parts[STEP] + self.parts[EVALUATION]) / (self.slots * self.wall_s) if self.wall_s > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "idle_s": self.idle_s, "training_share": self.training_share}


def ledger_between(lines: Iterable[dict[str, Any]], slots: int, began: float, ended: float) -> Ledger:
    """Returns the ledger of the time from `began` to `ended` (Unix times).

    A line that lies partly outside counts in proportion.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    for line in lines:
        seconds = sum(line[part] for part in PARTS)
        overlap = min(line["ended"], ended) - max(line["ended"] - seconds, began)
        if seconds > 0 and overlap > 0:
            for part in PARTS:
                parts[part] += line[part] * overlap / seconds
    return Ledger(slots, max(ended - began, 0.0), parts)


def start_seconds(lines_of_trials: Iterable[Sequence[dict[str, Any]]], began: float = 0.0) -> list[float]:
    """Returns how long each trial but its worker's first took to start.

    That is counted from the last epoch of the trial before it in that worker, whose result was then on its way to the
    searcher, to its own first window. Only trials set up after `began` count.
    """
    of_worker: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in (line for lines in lines_of_trials for line in lines):
        of_worker[line["worker"]].append(line)
    seconds = []
    for lines in of_worker.values():
        last_epoch = None
        for line in sorted(lines, key=lambda line: float(line["ended"])):
            if line["what"] == "setup" and last_epoch is not None and line["ended"] >= began:
                seconds.append(line["ended"] - last_epoch)
            if line["what"] == "epoch":
                last_epoch = line["ended"]
    return seconds


def write_ledger(search_dir: Path, slots: int, began: float, ended: float) -> str:
    """Writes the search's ledger.json and returns it in a sentence.

    began, ended: Unix times of this run of the search.
    """
    trials = [read_times(folder) for folder in sorted(search_dir.glob("t[0-9]*"))]
    lines = [line for trial in trials for line in trial]
    whole = ledger_between(lines, slots, began, ended)
    later = ledger_between(lines, slots, began + WARM_UP_S, ended)
    starts = start_seconds(trials, began)
    write_json(
        search_dir / LEDGER,
        {
            "whole": whole.as_dict(),
            "after_first_minute": later.as_dict() if later.wall_s else None,
            "trial_start_s": {"median": statistics.median(starts), "max": max(starts)} if starts else None,
        },
    )
    return sentence(whole, later)


def sentence(whole: Ledger, later: Ledger) -> str:
    """Returns in one line where the time went; parts below half a percent are left out.

    Args:
        whole: the time of the whole search.
        later: the time after the first minute, which a short search spends on starting.
    """
    total = whole.slots * whole.wall_s
    if total <= 0:
        return "where the time went is not known: the clock was set back during the search"
    parts = whole.parts
    shares = {
        "training": parts[STEP],
        "evaluation": parts[EVALUATION],
        "start-up and waiting": parts[SETUP] + whole.idle_s,
        "waiting for images": parts[DATA_WAIT],
        "saving and reporting": parts[CHECKPOINT] + parts[REPORT],
    }
    named = [
        f"{100 * seconds / total:.0f} % {name}"
        for name, seconds in sorted(shares.items(), key=lambda item: -item[1])
        if seconds >= total / 200
    ]
    at_once = "one trial at a time" if whole.slots == 1 else f"with {whole.slots} trials in parallel"
    text = f"{whole.wall_s:.0f} s {at_once}: {', '.join(named)}"
    if later.wall_s:
        text += f"; after the first minute {100 * later.training_share:.0f} % training and evaluation"
    return text


def read_ledger(search_dir: Path) -> dict[str, Any] | None:
    """Returns what `write_ledger` wrote, None where there is none."""
    try:
        read: dict[str, Any] = json.loads((search_dir / LEDGER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return read
