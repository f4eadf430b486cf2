"""Is anything lost when a search is killed, its disk fills up, or its files are damaged?

    python benchmarks/chaos.py PART... --out DIR [--kills 21] [--stops 15] [--worker-kills 10] [--seed 0]
                               [--only CASE...]

Parts, all of 12-trial searches of a tiny network on synthetic leaves, one trial at a time on the CPU:

  driver   SIGKILL of the search at random moments (before the first trial, while a checkpoint is written, between
           trials, while best/ is written, at any time), alone or with all of its processes; each search is then
           resumed to its end and compared with one that nobody disturbed
  stop     SIGTERM to the search's process group, a hang-up of its terminal, or a reader of its output that goes, at the
           same moments; it must end in order with its best network and its report (or, without a reader, go on), leave
           no process after 5 s, and go on as above
  worker   SIGKILL of the process that trains, twice a search
  faults   each fault of chaos_faults.py

Every case is a JSON line in DIR/PART.jsonl and on standard output; DIR/PART.csv holds the same as a table. Exit code 1
when a case failed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos_faults import FAULTS
from chaos_search import (
    EPOCHS,
    STOPS,
    TRIALS,
    Ending,
    Search,
    alive,
    descendants,
    differences,
    endings,
    epochs_trained,
    trial_workers,
    unreadable,
)
from vram_harness import Results

from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.training.run_folder import read_metrics

GONE_AFTER_S = 5.0  # that Ray's processes have, after the search has ended
MOMENTS = ("start", "checkpoint", "between trials", "export", "any")


@dataclass(frozen=True)
class Timing:
    """When things happened in the undisturbed search, seconds from its start."""

    first_epoch_s: float
    end_s: float


def undisturbed(home: Path, leaves: Path) -> tuple[dict[int, Ending], Timing]:
    """Runs the search that the others are compared with."""
    Search(home, leaves, home / "warm-up", "--trials", "1").wait()  # builds the store
    search = Search(home, leaves, home / "undisturbed")
    search.wait_until(lambda: bool(read_metrics(search.out / "t000")))
    first_epoch_s = search.seconds()
    assert search.wait() == 0, search.output()
    return endings(search.out), Timing(first_epoch_s, search.seconds())


def wait_for_moment(search: Search, moment: str, timing: Timing, chance: random.Random) -> bool:
    """Returns at a moment of the kind asked for; False when the search ended before."""
    if moment == "start":
        at = chance.uniform(0.0, timing.first_epoch_s)
        return search.wait_until(lambda: search.seconds() >= at)
    if moment == "any":
        at = chance.uniform(timing.first_epoch_s, timing.end_s)
        return search.wait_until(lambda: search.seconds() >= at)
    if moment == "export":
        return search.wait_until(lambda: (search.out / ".best.tmp").exists(), every_s=0.0005)
    if moment == "checkpoint":
        trial = search.out / f"t{chance.choice([0, 0, 1, 2]):03d}"
        return search.wait_until(
            lambda: any(trial.glob(".last.pt.*.tmp")) or (trial / "last.pt").exists(), every_s=0.0005
        )
    ended = chance.randrange(1, TRIALS)
    return search.wait_until(
        lambda: sum(folder.is_dir() for folder in search.out.glob("t[0-9]*")) > ended, every_s=0.002
    )


def watch_leftovers(
    workers: list[int], processes: list[int], since: float, seconds: dict[str, float]
) -> threading.Thread:
    """Notes, in the background, how long the processes of a killed search live on: those that trained, and all."""

    def watch() -> None:
        for name, watched in (("workers_gone_s", workers), ("all_gone_s", processes)):
            while alive(watched) and time.monotonic() - since < 200:
                time.sleep(0.05)
            seconds[name] = round(time.monotonic() - since, 1)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def kill_driver(results: Results, home: Path, leaves: Path, arguments: argparse.Namespace) -> None:
    """Kills the search at its moments; each is then resumed at once."""
    reference, timing = undisturbed(home, leaves)
    states = [ending.state for ending in reference.values()]
    print(f"undisturbed: {timing}, {states.count('PRUNED')} of {len(states)} pruned", flush=True)
    for number in range(arguments.kills):
        chance = random.Random(f"{arguments.seed}-{number}")
        moment, whole_tree = MOMENTS[number % len(MOMENTS)], number % 2 == 0
        search = Search(home, leaves, home / f"driver-{number}")
        met = wait_for_moment(search, moment, timing, chance)
        killed_at = search.seconds()
        workers = trial_workers(search)
        others = search.kill(whole_tree)
        lingering: dict[str, float] = {}
        watcher = watch_leftovers(workers, others, time.monotonic(), lingering)
        before = endings(search.out)
        halves = [path.name for path in search.out.rglob(".*.tmp")] if search.out.exists() else []
        begun = (search.out / "search.toml").exists()
        resumed = Search(home, leaves, search.out, resume=begun)
        code = resumed.wait()
        watcher.join()
        row = outcome_of(search.out, before, reference, code)
        what = "driver and its processes" if whole_tree else "driver alone"
        add(
            results,
            f"{moment} ({number})",
            row,
            killed=what,
            moment_met=met,
            killed_at_s=round(killed_at, 1),
            half_written=len(halves),
            **lingering,
        )


def stop_search(results: Results, home: Path, leaves: Path, arguments: argparse.Namespace) -> None:
    """Ends the search in each way at its moments; each is then resumed at once."""
    reference, timing = undisturbed(home, leaves)
    for number in range(arguments.stops):
        chance = random.Random(f"{arguments.seed}-stop-{number}")
        how, moment = STOPS[number % len(STOPS)], MOMENTS[number % len(MOMENTS)]
        search = Search(home, leaves, home / f"stop-{number}", into_pipe=how == "reader gone")
        met = wait_for_moment(search, moment, timing, chance)
        processes, stopped_at = descendants(search.process.pid), time.monotonic()
        search.stop(how)
        code = search.wait()
        ended_s = time.monotonic() - stopped_at
        while alive(processes) and time.monotonic() - stopped_at < ended_s + GONE_AFTER_S:
            time.sleep(0.05)
        left = len(alive(processes))
        before = endings(search.out)
        has_result = any(ending.values for ending in before.values())
        written = all((search.out / name).exists() for name in ("best/model.safetensors", "report.html"))
        whole = len(before) == TRIALS and all(ending.state != "RUNNING" for ending in before.values())
        ends = {0} if how == "reader gone" else {0, 130} if whole else {130}
        if not search.out.exists():  # the program had not come to hear signals
            ends |= {-signal.SIGTERM, -signal.SIGHUP}
        in_order = code in ends and (written or not has_result) and not left
        resumed = Search(home, leaves, search.out, resume=(search.out / "search.toml").exists())
        row = outcome_of(search.out, before, reference, resumed.wait())
        row["right"] = row["right"] and in_order
        add(
            results,
            f"{how}, {moment} ({number})",
            row,
            moment_met=met,
            stopped_code=code,
            ended_s=round(ended_s, 1),
            processes_left=left,
            best_and_report=written,
        )


def outcome_of(out: Path, before: dict[int, Ending], reference: dict[int, Ending], code: int) -> dict[str, Any]:
    """Returns what a disturbed search came to. All of its trials must end as in the undisturbed one."""
    after = endings(out)
    changed = differences(before, after)
    others = [number for number, ending in reference.items() if after.get(number) != ending]
    faults = unreadable(out)
    running = sum(ending.state == "RUNNING" for ending in after.values())
    best = (out / "best" / "model.safetensors").exists()
    return {
        "exit_code": code,
        "ended_before": sum(ending.state != "RUNNING" for ending in before.values()),
        "trials": len(after),
        "lost_or_repeated": len(changed),
        "left_running": running,
        "compared": len(reference),
        "unlike_undisturbed": len(others),
        "unreadable": len(faults),
        "detail": "; ".join(
            [*faults, *(f"t{number:03d} {after.get(number)} not {reference[number]}" for number in others)]
        )[:500],
        "right": code == 0 and len(after) == TRIALS and not (changed or running or others or faults) and best,
    }


def kill_workers(results: Results, home: Path, leaves: Path, arguments: argparse.Namespace) -> None:
    """Kills the training process twice a search; nothing else may come of it."""
    reference, _ = undisturbed(home, leaves)
    for number in range((arguments.worker_kills + 1) // 2):
        chance = random.Random(f"{arguments.seed}-worker-{number}")
        search = Search(home, leaves, home / f"worker-{number}")
        kills = 0
        for _ in range(2):
            wait_for_epochs(search, epochs_trained(search.out) + chance.randrange(1, EPOCHS + 6))
            for worker in trial_workers(search)[:1]:
                os.kill(worker, signal.SIGKILL)
                kills += 1
        code = search.wait()
        row = outcome_of(search.out, endings(search.out), reference, code)
        add(results, f"worker ({number})", row, kills=kills)


def wait_for_epochs(search: Search, epochs: int) -> None:
    """Waits until so many epochs were trained, or the search has ended."""
    search.wait_until(lambda: epochs_trained(search.out) >= epochs)


def add(results: Results, case: str, row: dict[str, Any], **more: Any) -> None:
    """Writes a case down."""
    results.add(case=case, **more, **row)


def main() -> None:
    """Runs the parts and says whether every case was right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=("driver", "stop", "worker", "faults"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=21)
    parser.add_argument("--stops", type=int, default=15)
    parser.add_argument("--worker-kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=tuple(FAULTS), default=tuple(FAULTS), help="faults")
    arguments = parser.parse_args()
    wrong = []
    for part in arguments.parts:
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as folder:
            home = Path(folder)
            leaves = draw_leaves(home / "leaves", classes=4, per_class=30, image_size=40)
            results = Results(arguments.out, part, time.perf_counter())
            if part == "driver":
                kill_driver(results, home, leaves, arguments)
            elif part == "stop":
                stop_search(results, home, leaves, arguments)
            elif part == "worker":
                kill_workers(results, home, leaves, arguments)
            else:
                for name in arguments.only:
                    case = home / name.replace(" ", "-")
                    case.mkdir()
                    add(results, name, FAULTS[name](case, leaves))
            results.write_table()
            wrong += [row["case"] for row in results.rows if not row["right"]]
    print(f"{len(wrong)} cases went wrong{': ' if wrong else ''}{', '.join(wrong)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
