"""Where a search's time went: of all the seconds in which its trials could run, how many went into what.

The time of a resumed search is that of all its starts. A search that runs two trials in parallel for 10 s has 20 s: its
two slots' seconds.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tune_cropshield.search.final import final_trainings
from tune_cropshield.search.launches import TIME_FORMAT, read_starts
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
class Start:
    """One start of a search: how many trials ran at once, and from when to when (Unix times)."""

    slots: int
    began: float
    ended: float

    @property
    def wall_s(self) -> float:
        """Its seconds; 0 where the clock was set back."""
        return max(self.ended - self.began, 0.0)


@dataclass(frozen=True)
class Ledger:
    """Where the time of a search went, summed over its starts.

    slots: trials at once in the last start. wall_s: the seconds of all starts. slots_s: those of all their slots.
    parts: seconds of each part, all slots together; idle_s: what no trial took.
    """

    slots: int
    wall_s: float
    slots_s: float
    parts: dict[str, float]
    num_starts: int = 1

    @property
    def idle_s(self) -> float:
        return self.slots_s - sum(self.parts.values())

    @property
    def training_share(self) -> float:
        """The share of the slots' time that went into training steps and evaluation; 0 of no time."""
        return (self.parts[STEP] + self.parts[EVALUATION]) / self.slots_s if self.slots_s > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "idle_s": self.idle_s, "training_share": self.training_share}


def ledger_of(lines: Sequence[dict[str, Any]], starts: Sequence[Start]) -> Ledger:
    """Returns the ledger of the time of `starts`; there is at least one.

    A line that lies partly outside counts in proportion; one of the final training, which has all cores, for all slots.
    """
    parts = dict.fromkeys(PARTS, 0.0)
    for start in starts:
        for line in lines:
            slots = start.slots if line.get("on_all_cores") else 1
            seconds = sum(line[part] for part in PARTS)
            overlap = min(line["ended"], start.ended) - max(line["ended"] - seconds, start.began)
            if seconds > 0 and overlap > 0:
                for part in PARTS:
                    parts[part] += slots * line[part] * overlap / seconds
    slots_s = sum(start.slots * start.wall_s for start in starts)
    return Ledger(starts[-1].slots, sum(start.wall_s for start in starts), slots_s, parts, len(starts))


def all_starts(search_dir: Path, lines: Sequence[dict[str, Any]], last: Start) -> list[Start]:
    """Returns every start of a search, `last` at the end, which is the last line of its starts.jsonl."""
    return [*_earlier_starts(search_dir, lines, read_starts(search_dir)[:-1], last.began), last]


def _earlier_starts(
    search_dir: Path, lines: Sequence[dict[str, Any]], launches: Sequence[dict[str, Any]], until: float
) -> list[Start]:
    """Returns the starts that `launches` tell of, all of them before `until`.

    The ledger that an earlier start wrote at its end knows it and those before it. One that was killed wrote none: it
    ends with the last line of its trials.
    """
    known = [Start(**start) for start in (read_ledger(search_dir) or {}).get("starts", [])]
    launches = launches[len(known) :]
    times = [datetime.strptime(launch["started"], TIME_FORMAT).timestamp() for launch in launches]
    for launch, began, next_began in zip(launches, times, [*times, until][1:], strict=True):
        ends = [line["ended"] for line in lines if began <= line["ended"] < next_began]
        known.append(Start(launch["trials_at_once"], began, max(ends, default=began)))
    return known


def spent_s(search_dir: Path) -> tuple[float, float]:
    """Returns the seconds that all starts of a search have taken so far, and those until their last trials ended.

    Both are 0 for a search that is only beginning.
    """
    of_trials = [line for lines in _of_trials(search_dir) for line in lines]
    starts = _earlier_starts(
        search_dir, [*of_trials, *_of_final_trainings(search_dir)], read_starts(search_dir), time.time()
    )
    searching = 0.0
    for start in starts:
        ends = [line["ended"] for line in of_trials if start.began <= line["ended"] <= start.ended]
        searching += max(ends, default=start.began) - start.began
    return sum(start.wall_s for start in starts), searching


def _of_trials(search_dir: Path) -> list[list[dict[str, Any]]]:
    return [read_times(folder) for folder in sorted(search_dir.glob("t[0-9]*"))]


def _of_final_trainings(search_dir: Path) -> list[dict[str, Any]]:
    return [
        {**line, "on_all_cores": True} for final in final_trainings(search_dir) for line in read_times(final.folder)
    ]


def start_seconds(lines_of_trials: Iterable[Sequence[dict[str, Any]]]) -> list[float]:
    """Returns how long each trial but its worker's first took to start.

    That is counted from the last epoch of the trial before it in that worker, whose result was then on its way to the
    searcher, to its own first window.
    """
    of_worker: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
    for line in (line for lines in lines_of_trials for line in lines):
        of_worker[line["worker"]].append(line)
    seconds = []
    for lines in of_worker.values():
        last_epoch = None
        for line in sorted(lines, key=lambda line: float(line["ended"])):
            if line["what"] == "setup" and last_epoch is not None:
                seconds.append(line["ended"] - last_epoch)
            if line["what"] == "epoch":
                last_epoch = line["ended"]
    return seconds


def write_ledger(search_dir: Path, slots: int, began: float, ended: float) -> str:
    """Writes the search's ledger.json, of all its starts, and returns it in a sentence.

    slots, began, ended: of this start of the search, which is the last line of its starts.jsonl; Unix times.
    """
    trials = _of_trials(search_dir)
    lines = [*(line for trial in trials for line in trial), *_of_final_trainings(search_dir)]
    starts = all_starts(search_dir, lines, Start(slots, began, ended))
    whole = ledger_of(lines, starts)
    later = ledger_of(lines, [replace(start, began=start.began + WARM_UP_S) for start in starts])
    waits = start_seconds(trials)
    write_json(
        search_dir / LEDGER,
        {
            "whole": whole.as_dict(),
            "after_first_minute": later.as_dict() if later.wall_s else None,
            "trial_start_s": {"median": statistics.median(waits), "max": max(waits)} if waits else None,
            "starts": [asdict(start) for start in starts],
        },
    )
    return sentence(whole, later)


def sentence(whole: Ledger, later: Ledger) -> str:
    """Returns in one line where the time went; parts below half a percent are left out.

    Args:
        whole: the time of the whole search.
        later: the time after each start's first minute, which a short search spends on starting.
    """
    total = whole.slots_s
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
    in_starts = f" in {whole.num_starts} starts" if whole.num_starts > 1 else ""
    text = f"{whole.wall_s:.0f} s{in_starts} {at_once}: {', '.join(named)}"
    if later.wall_s:
        first = "the first minute" if whole.num_starts == 1 else "each start's first minute"
        text += f"; after {first} {100 * later.training_share:.0f} % training and evaluation"
    return text


def read_ledger(search_dir: Path) -> dict[str, Any] | None:
    """Returns what `write_ledger` wrote, None where there is none."""
    try:
        read: dict[str, Any] = json.loads((search_dir / LEDGER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return read
