"""A small search in a process of its own, ways to kill it, and what is looked at afterwards."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import TrialState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tune_cropshield.config.settings import load_config
from tune_cropshield.config.space_file import load_space
from tune_cropshield.search.journal import read_study
from tune_cropshield.training.board import events_folder, tag_of
from tune_cropshield.training.checkpoint import load_checkpoint
from tune_cropshield.training.clock import read_times
from tune_cropshield.training.run_folder import read_metrics

TRIALS, EPOCHS = 12, 6
SPACE = f"""
[trial]
model = "tiny_cnn"
image_size = 32
augment = "conservative"
schedule = "onecycle"
[space]
lr = {{log = [1e-4, 3e-2]}}
max_norm = {{choice = ["none", 1.0]}}
effective_batch = {{choice = [16, 32]}}
[search]
trials = {TRIALS}
epochs = {EPOCHS}
grace_epochs = 1
reduction_factor = 2
trials_per_gpu = 1
device = "cpu"
[[start]]
lr = 1e-3
"""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
PATIENCE_S = 400
STOPS = ("SIGTERM to the group", "hang-up", "reader gone")


@dataclass(frozen=True)
class Ending:
    """What the journal says of a trial."""

    state: str
    params: dict[str, Any]
    values: dict[int, float]
    outcome: str | None
    reason: str | None


def endings(out: Path) -> dict[int, Ending]:
    """Returns every started trial of the search in `out`, by number; none where no study was begun."""
    if not (out / "study.journal").exists() or not (out / "study.journal").stat().st_size:
        return {}
    return {
        trial.number: Ending(
            trial.state.name,
            trial.params,
            trial.intermediate_values,
            trial.user_attrs.get("outcome"),
            trial.user_attrs.get("reason"),
        )
        for trial in read_study(out).get_trials()
        if trial.state != TrialState.WAITING
    }


class Search:
    """The real command in a session of its own, its output in a file."""

    def __init__(
        self,
        home: Path,
        leaves: Path,
        out: Path,
        *flags: str,
        resume: bool = False,
        space: str = SPACE,
        into_pipe: bool = False,
    ) -> None:
        self.out, self.log = out, home / f"{out.name}.log"
        (home / "space.toml").write_text(space)
        new = ["--space", str(home / "space.toml"), "--data", str(leaves), "--from-scratch"]
        given = ["--resume"] if resume else new
        command = [sys.executable, "-m", "tune_cropshield", "search", "--out", str(out), *given, *flags]
        environment = {**os.environ, "XDG_CACHE_HOME": str(home / "cache")}
        self.started = time.monotonic()
        with open(self.log, "w", encoding="utf-8") as log:
            said = subprocess.PIPE if into_pipe else log
            self.process = subprocess.Popen(
                command, stdout=said, stderr=subprocess.STDOUT, start_new_session=True, env=environment
            )

    def wait(self) -> int:
        """Returns the exit code; kills what takes too long."""
        try:
            return self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.kill(whole_tree=True)
            return -1

    def wait_until(self, condition: Callable[[], bool], every_s: float = 0.02) -> bool:
        """Waits for `condition`; returns False when the search ended first."""
        while self.process.poll() is None:
            if condition():
                return True
            time.sleep(every_s)
        return False

    def kill(self, whole_tree: bool) -> list[int]:
        """SIGKILLs the driver, with all of its processes as a power cut would or alone, and returns the processes there
        were beside it.
        """
        others = descendants(self.process.pid)
        for process in [self.process.pid, *(others if whole_tree else [])]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.process.wait()
        return others

    def stop(self, how: str) -> None:
        """Asks the search to end in one of the ways of `STOPS`, or takes its reader away."""
        if how == "reader gone":
            assert self.process.stdout is not None
            self.process.stdout.close()
            return
        with contextlib.suppress(ProcessLookupError):
            if how == "SIGTERM to the group":  # as `timeout` does it
                os.kill(self.process.pid, signal.SIGTERM)
                os.killpg(self.process.pid, signal.SIGTERM)
            else:
                os.killpg(self.process.pid, signal.SIGHUP)

    def seconds(self) -> float:
        return time.monotonic() - self.started

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8")


def descendants(ancestor: int) -> list[int]:
    """Returns the processes that come from `ancestor`, however far."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: list[int] = []
    waiting = [ancestor]
    while waiting:
        born = children.get(waiting.pop(), [])
        found += born
        waiting += born
    return found


def command_of(process: int) -> str:
    """Returns a process's command line, "" when it has gone or is a zombie."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def trial_workers(search: Search) -> list[int]:
    """Returns the processes in which trials are trained."""
    trained = {line["worker"] for folder in search.out.glob("t[0-9]*") for line in read_times(folder)}
    return [process for process in descendants(search.process.pid) if process in trained and command_of(process)]


def alive(processes: list[int]) -> list[int]:
    """Returns those that still run."""
    return [process for process in processes if command_of(process)]


def epochs_trained(out: Path) -> int:
    """Returns how many epochs a search's trials have written."""
    return sum(len(read_metrics(folder)) for folder in out.glob("t[0-9]*"))


def unreadable(out: Path) -> list[str]:
    """Returns what cannot be read of a search that has ended, and what a writer left aside."""
    faults = []
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        try:
            _read(path)
        except Exception as error:
            faults.append(f"{path.relative_to(out)}: {type(error).__name__}: {error}")
        if path.name.endswith(".tmp"):
            faults.append(f"{path.relative_to(out)}: left aside")
    for folder in sorted(out.glob("t[0-9]*")):
        faults += _faults_of_run(folder)
    return faults


def _read(path: Path) -> None:
    text = path.read_text(encoding="utf-8") if path.suffix in (".json", ".jsonl", ".csv") else ""
    if path.name == "search.toml":
        load_space(path)
    elif path.name == "config.toml":
        load_config(path)
    elif path.name == "study.journal":
        read_study(path.parent)
    elif path.suffix == ".json":
        json.loads(text)
    elif path.suffix == ".jsonl":
        for line in text.split("\n")[:-1]:
            json.loads(line)
        assert text == "" or text.endswith("\n"), "half a line"
    elif path.suffix == ".csv":
        assert all(None not in row for row in csv.DictReader(text.splitlines())), "a row is too long"
    elif path.suffix == ".safetensors":
        load_file(path)
    elif path.suffix == ".pt":
        load_checkpoint(path)


def _faults_of_run(folder: Path) -> Iterator[str]:
    epochs = [line["epoch"] for line in read_metrics(folder)]
    if epochs != list(range(1, len(epochs) + 1)):
        yield f"{folder.name}/metrics.jsonl: epochs {epochs}"
    accumulator = EventAccumulator(str(events_folder(folder)))
    accumulator.Reload()
    tag = tag_of("val_acc")
    steps = [event.step for event in accumulator.Scalars(tag)] if tag in accumulator.Tags()["scalars"] else []
    if steps != epochs:
        yield f"{folder.name}: TensorBoard shows epochs {steps}, metrics.jsonl {epochs}"


def differences(before: dict[int, Ending], after: dict[int, Ending]) -> list[int]:
    """Returns the trials that were lost or repeated.

    One that had ended must be the same after; one that had not, be it under way or stopped at a pruning step for now,
    must have kept its parameters and what its epochs came to.
    """
    return [number for number, ending in before.items() if number not in after or not _kept(ending, after[number])]


def _kept(before: Ending, after: Ending) -> bool:
    if before.state in [state.name for state in ENDED]:
        return before == after
    return before.params.items() <= after.params.items() and before.values.items() <= after.values.items()
