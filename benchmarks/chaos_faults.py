"""One function per fault: it lets a search meet the fault and returns what came of it; `right` says whether that is
what should.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chaos_search import PATIENCE_S, SPACE, TRIALS, Search, differences, endings, unreadable

from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.training.run_folder import read_events, read_metrics


def faulty_search(home: Path, leaves: Path, fault: str, trials: int = 4) -> tuple[dict[str, Any], str]:
    """Runs faulty_search.py and returns how the search ended and all that it printed."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("faulty_search.py")),
        fault,
        "--out",
        str(home / "out"),
        "--data",
        str(leaves),
    ]
    done = subprocess.run(
        [*command, "--trials", str(trials)], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    if done.returncode:
        return {"stopped": done.stderr[-400:], "failed": True}, done.stdout
    *printed, last = done.stdout.splitlines()
    return json.loads(last), "\n".join(printed)


def states(out: Path) -> list[str]:
    """Returns the trials' states in order."""
    return [ending.state for ending in endings(out).values()]


def nan_loss(home: Path, leaves: Path) -> dict[str, Any]:
    ended, _ = faulty_search(home, leaves, "nan")
    trials, faults = endings(home / "out"), unreadable(home / "out")
    said = trials[0].reason or ""
    right = (
        trials[0].state == "PRUNED"
        and trials[0].outcome == "diverged"
        and "in epoch 3" in said
        and "gradient norm" in said
    )
    others = all(trials[number].outcome in ("finished", "pruned") for number in (1, 2, 3))
    return {"state": trials[0].state, "said": said, "right": right and others and not faults and not ended["failed"]}


def overflowing_gradients(home: Path, leaves: Path) -> dict[str, Any]:
    _, printed = faulty_search(home, leaves, "overflow")
    trials, events = endings(home / "out"), read_events(home / "out" / "t000")
    said = next((line for line in printed.splitlines() if "it continues in fp32" in line), "")
    right = (
        trials[0].outcome in ("finished", "pruned")
        and [event["after"] for event in events] == ["fp32"]
        and said.startswith("t000: ")
    )
    return {"state": trials[0].state, "said": said, "right": right and not unreadable(home / "out")}


def metric_of_none(home: Path, leaves: Path) -> dict[str, Any]:
    faulty_search(home, leaves, "none")
    trials = endings(home / "out")
    # Its last result says that it is finished, but holds no accuracy. What it had reported before stays.
    right = (trials[0].state, trials[0].reason, list(trials[0].values)) == ("FAIL", "it reported no accuracy", [1])
    right = right and all(trials[number].outcome in ("finished", "pruned") for number in (1, 2, 3))
    return {"state": trials[0].state, "said": trials[0].reason, "right": right and not unreadable(home / "out")}


def image_vanishes(home: Path, leaves: Path) -> dict[str, Any]:
    """Between indexing and decoding: the last picture goes as soon as the store is begun."""
    many = draw_leaves(home / "many", classes=4, per_class=400, image_size=40)
    victim = sorted(many.rglob("*.*"))[-1]
    search = Search(home, many, home / "out", "--trials", "2")
    met = search.wait_until(lambda: any((home / "cache" / "tune_cropshield").glob("*.tmp-*")), every_s=0.0005)
    victim.unlink()
    code = search.wait()
    said = next((line for line in search.output().splitlines() if line.startswith("left out: ")), "")
    return {
        "exit_code": code,
        "said": said,
        "moment_met": met,
        "right": code == 0 and victim.name in said and states(home / "out").count("RUNNING") == 0,
    }


def cache_cut_short(home: Path, leaves: Path) -> dict[str, Any]:
    first = Search(home, leaves, home / "out", "--trials", "2").wait()
    before = endings(home / "out")
    (store,) = (home / "cache").rglob("images.u8")
    whole = store.read_bytes()
    store.write_bytes(whole[: len(whole) // 3])
    code = Search(home, leaves, home / "out", "--trials", "4", resume=True).wait()
    (rebuilt,) = (home / "cache").rglob("images.u8")
    same = rebuilt.read_bytes() == whole
    lost = differences(before, endings(home / "out"))
    return {
        "exit_code": code,
        "right": first == code == 0
        and same
        and not lost
        and len(states(home / "out")) == 4
        and not unreadable(home / "out"),
    }


def byte_flipped_in_checkpoint(home: Path, leaves: Path) -> dict[str, Any]:
    """A search is interrupted, the checkpoint of the trial under way is damaged, and the search goes on."""
    space = SPACE.replace("epochs = 6", "epochs = 60").replace("grace_epochs = 1", "grace_epochs = 60")
    undisturbed = Search(home, leaves, home / "whole", "--trials", "1", space=space)
    undisturbed.wait()
    search = Search(home, leaves, home / "out", "--trials", "1", space=space)
    search.wait_until(lambda: len(read_metrics(home / "out" / "t000")) >= 20)
    search.process.send_signal(signal.SIGINT)
    interrupted = search.wait()
    checkpoint = home / "out" / "t000" / "last.pt"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    resumed = Search(home, leaves, home / "out", resume=True)
    code = resumed.wait()
    said = next((line for line in resumed.output().splitlines() if "is damaged" in line), "")
    same = endings(home / "out") == endings(home / "whole")
    return {
        "exit_code": code,
        "said": said,
        "right": interrupted == 130 and code == 0 and bool(said) and same and not unreadable(home / "out"),
    }


def journal_ends_in_half_a_line(home: Path, leaves: Path) -> dict[str, Any]:
    search = Search(home, leaves, home / "out", "--trials", "6")
    search.wait_until(lambda: (home / "out" / "t002").exists())
    search.kill(whole_tree=True)
    before = endings(home / "out")
    with open(home / "out" / "study.journal", "a", encoding="utf-8") as journal:
        journal.write('{"op_code":6,"worker_id":"')
    readable = endings(home / "out") == before
    code = Search(home, leaves, home / "out", resume=True).wait()
    after = endings(home / "out")
    right = (
        code == 0
        and readable
        and not differences(before, after)
        and len(after) == 6
        and "RUNNING" not in states(home / "out")
    )
    return {"exit_code": code, "right": right and not unreadable(home / "out")}


def full_disk(home: Path, leaves: Path) -> dict[str, Any]:
    """A disk on which a few trials fit; later it is made larger. Twice: once a file fills it up between trials, once
    the trials themselves do.
    """
    rows = []
    for name, kib, filled_by_others in (("small", 3000, False), ("filled", 8000, True)):
        disk = home / name
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(disk)]
        if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
            return {"said": "left out: no right to mount a small disk", "right": True}
        try:
            rows.append(_on_disk(home, leaves, disk, filled_by_others))
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=False)
    return {
        "exit_code": rows[0]["exit_code"],
        "said": rows[0]["said"],
        "detail": json.dumps(rows),
        "right": all(row["right"] for row in rows),
    }


def _on_disk(home: Path, leaves: Path, disk: Path, filled_by_others: bool) -> dict[str, Any]:
    out = disk / "out"
    search = Search(home, leaves, out)
    if filled_by_others:
        search.wait_until(lambda: (out / "t003").exists())
        with open(disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
    code = search.wait()
    errors = [line for line in search.output().splitlines() if line.startswith("error: ") or "Traceback" in line]
    faults, before = unreadable(out), endings(out)
    (disk / "filler").unlink(missing_ok=True)
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    resumed = Search(home, leaves, out, resume=True)
    resumed_code = resumed.wait()
    after = endings(out)
    told = len(errors) == 1 and errors[0].startswith("error: no space left on the disk while writing ")
    whole = (
        resumed_code == 0
        and len(after) == TRIALS
        and not differences(before, after)
        and "RUNNING" not in states(out)
        and not unreadable(out)
    )
    return {
        "exit_code": code,
        "said": "; ".join(errors),
        "ended_before": sum(ending.state != "RUNNING" for ending in before.values()),
        "unreadable_while_full": faults,
        "resumed": resumed_code,
        "right": code == 2 and told and not faults and whole,
    }


def clock_jumps_back(home: Path, leaves: Path) -> dict[str, Any]:
    ended, _ = faulty_search(home, leaves, "clock")
    trials = endings(home / "out")
    right = len(trials) == 4 and all(ending.outcome in ("finished", "pruned") for ending in trials.values())
    return {"said": ended["stopped"], "right": right and ended["stopped"] is None and not unreadable(home / "out")}


def all_fail_alike(home: Path, leaves: Path) -> dict[str, Any]:
    ended, _ = faulty_search(home, leaves, "same", trials=100)
    found = states(home / "out")
    right = ended["failed"] and ended["stopped"] == "the first 3 trials all failed: RuntimeError: the lens is dirty"
    kept = "the lens is dirty" in (home / "out" / "t000" / "error.txt").read_text()
    return {
        "trials": len(found),
        "said": ended["stopped"],
        "right": right and kept and 3 <= len(found) <= 4 and not unreadable(home / "out"),
    }


def all_fail_differently(home: Path, leaves: Path) -> dict[str, Any]:
    ended, _ = faulty_search(home, leaves, "different", trials=100)
    trials = endings(home / "out")
    reasons = [ending.reason for ending in trials.values()]
    right = (
        reasons == [f"RuntimeError: lens {number} is dirty" for number in range(100)]
        and states(home / "out") == ["FAIL"] * 100
    )
    return {"trials": len(trials), "said": ended["stopped"], "right": right and not unreadable(home / "out")}


def settings_do_not_arrive(home: Path, leaves: Path) -> dict[str, Any]:
    """Every trial is trained with the settings of the first: the search must notice."""
    ended, _ = faulty_search(home, leaves, "deaf", trials=6)
    said = ended["stopped"] or ""
    return {
        "trials": len(endings(home / "out")),
        "said": said,
        "right": ended["failed"] and said.startswith("trials 0 and 1 have identical weights"),
    }


def two_at_once(home: Path, leaves: Path) -> dict[str, Any]:
    """Two searches at once on one machine, building the same cache."""
    homes = [home / "a", home / "b"]
    for each in homes:
        each.mkdir()
        (each / "cache").symlink_to(home / "cache")
    (home / "cache").mkdir()
    searches = [Search(each, leaves, each / "out") for each in homes]
    codes = [search.wait() for search in searches]
    alone = Search(home, leaves, home / "alone")
    alone.wait()
    same = all(endings(each / "out") == endings(home / "alone") for each in homes)
    faults = [fault for each in homes for fault in unreadable(each / "out")]
    return {"exit_code": max(codes), "detail": "; ".join(faults), "right": codes == [0, 0] and same and not faults}


def terminated(home: Path, leaves: Path) -> dict[str, Any]:
    """SIGTERM while trials run: an orderly end, nothing left running, nothing lost."""
    from chaos_search import alive, descendants

    undisturbed = Search(home, leaves, home / "whole")
    undisturbed.wait()
    search = Search(home, leaves, home / "out")
    search.wait_until(lambda: (home / "out" / "t002").exists())
    processes = descendants(search.process.pid)
    os.kill(search.process.pid, signal.SIGTERM)
    code = search.wait()
    deadline = time.monotonic() + 10
    while alive(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
    left, before = alive(processes), endings(home / "out")
    resumed = Search(home, leaves, home / "out", resume=True).wait()
    after, reference = endings(home / "out"), endings(home / "whole")
    same = all(after[number] == reference[number] for number in before)
    right = code == 130 and not left and resumed == 0 and same and len(after) == TRIALS and not unreadable(home / "out")
    return {"exit_code": code, "left_running": len(left), "right": right}


FAULTS: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "NaN loss in epoch 3": nan_loss,
    "50 overflowing windows in fp16": overflowing_gradients,
    "metric of None": metric_of_none,
    "image vanishes after indexing": image_vanishes,
    "cache file cut short": cache_cut_short,
    "byte flipped in a checkpoint": byte_flipped_in_checkpoint,
    "journal ends in half a line": journal_ends_in_half_a_line,
    "disk full": full_disk,
    "clock jumps back": clock_jumps_back,
    "100 trials fail alike": all_fail_alike,
    "100 trials fail differently": all_fail_differently,
    "settings do not reach the trials": settings_do_not_arrive,
    "two searches at once": two_at_once,
    "SIGTERM": terminated,
}
