"""A search that is asked to end, or whose reader goes: `stop`, signals, a hang-up, `| head`. All real."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tune_cropshield import list_searches
from tune_cropshield.search.journal import read_study
from tune_cropshield.training.run_folder import read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
schedule = "constant"
warmup_epochs = 0.0
[space]
lr = {log = [1e-3, 1e-2]}
[baseline]
[search]
trials = 3
epochs = 3
grace_epochs = 1
trials_per_gpu = 1
device = "cpu"
"""

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def search(drawn_leaves: Path, home: Path) -> Iterator[Start]:
    """Starts a search in a process group of its own, and kills what is left of it afterwards."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        *flags: str, stdout: IO[bytes] | int, stderr: IO[bytes] | int = subprocess.STDOUT, space: str = SPACE
    ) -> subprocess.Popen[bytes]:
        (home / "space.toml").write_text(space)
        given = ["--space", str(home / "space.toml"), "--data", str(drawn_leaves), "--out", str(home / "out")]
        command = [sys.executable, "-m", "tune_cropshield", "search", *given, *flags]
        started.append(subprocess.Popen(command, stdout=stdout, stderr=stderr, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def family(ancestor: int) -> list[int]:
    """Returns the processes of the sessions of `ancestor` and of its children, which are all of the search's."""
    sessions = {ancestor, *(process for process, parent, _ in processes() if parent == ancestor)}
    return [process for process, _, session in processes() if session in sessions]


def processes() -> Iterator[tuple[int, int, int]]:
    """Yields (process, parent, session) of all that run and are no zombies."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if state != "Z":
            yield int(entry.name), int(parent), int(session)


def running(known: list[int]) -> list[int]:
    there = {process for process, _, _ in processes()}
    return [process for process in known if process in there]


def wait_for_an_epoch(process: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + 200
    while not any(read_metrics(folder) for folder in out.glob("t[0-9]*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)


def group(process: int) -> None:
    """As `timeout` does: to the process, and to its group with the process in it."""
    os.kill(process, signal.SIGTERM)
    os.killpg(process, signal.SIGTERM)


def everybody(process: int) -> None:
    """As systemd and a batch system do: to every process of the job."""
    for one in family(process):
        os.kill(one, signal.SIGTERM)


def hang_up(process: int) -> None:
    """As a terminal that is closed does."""
    os.killpg(process, signal.SIGHUP)


@pytest.mark.parametrize(
    "send",
    [
        group,
        pytest.param(everybody, marks=pytest.mark.slow),
        pytest.param(hang_up, marks=pytest.mark.slow),
    ],
)
def test_a_search_that_is_asked_to_end_leaves_its_best_and_its_report_and_no_process(
    search: Start, home: Path, send: Callable[[int], None]
) -> None:
    out = home / "out"
    with open(home / "said", "wb") as said:
        process = search("--epochs", "3000", stdout=said)
    wait_for_an_epoch(process, out)
    all_of_it = family(process.pid)
    assert len(all_of_it) >= 7  # the search, and of Ray at least the parent, gcs_server, raylet, agents, a worker
    asked = time.monotonic()

    send(process.pid)

    assert process.wait(timeout=60) == 130
    assert time.monotonic() - asked < 30
    deadline = time.monotonic() + 5
    while running(all_of_it) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(all_of_it)
    assert (out / "best" / "model.safetensors").is_file() and (out / "report.html").is_file()
    text = (home / "said").read_text()
    assert text.count("stopping: ") == 1
    assert "ended early: interrupted. To continue:" in text
    assert [one.state for one in list_searches(out)] == ["interrupted"]
    # what was under way can go on from where it was
    assert (out / "t000" / "last.pt").is_file()
    assert read_study(out).trials[0].state.name == "RUNNING"


def test_a_trial_and_then_the_search_are_stopped_from_another_process(search: Start, home: Path) -> None:
    out = home / "out"
    with open(home / "said", "wb") as said:
        process = search("--epochs", "3000", stdout=said, space=SPACE + 'pruning = "none"\n')
    wait_for_an_epoch(process, out)
    stop = [sys.executable, "-m", "tune_cropshield", "stop", str(out)]

    trial = subprocess.run([*stop, "t000"], capture_output=True, text=True, timeout=60, check=False)

    assert (trial.returncode, trial.stderr) == (0, "")
    assert trial.stdout.splitlines()[-1].endswith("(stopped by hand): the search continues without it")
    stopped = read_study(out).trials[0]
    assert (stopped.state.name, stopped.user_attrs["reason"]) == ("PRUNED", "stopped by hand")
    assert max(stopped.intermediate_values) == len(read_metrics(out / "t000"))
    deadline = time.monotonic() + 60
    while not read_metrics(out / "t001"):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)

    whole = subprocess.run(stop, capture_output=True, text=True, timeout=60, check=False)

    assert (whole.returncode, whole.stderr) == (0, "")
    assert whole.stdout.splitlines()[-1].startswith(f"the search in {out} stopped; best so far: trial ")
    assert process.wait(timeout=60) == 130
    assert (out / "best" / "model.safetensors").is_file() and (out / "report.html").is_file()
    assert "ended early: stopped by hand. To continue:" in (home / "said").read_text()
    assert not (out / "t000" / "last.pt").exists() and (out / "t001" / "last.pt").is_file()
    assert [trial.state.name for trial in read_study(out).trials[:2]] == ["PRUNED", "RUNNING"]
    with open(out / "trials.csv", newline="") as file:
        assert [(row["outcome"], row["reason"]) for row in csv.DictReader(file)] == [
            ("pruned", "stopped by hand"),
            ("unfinished", ""),
        ]
    assert list(out.glob(".stop*")) == []


def test_neither_a_reader_that_goes_nor_a_signal_while_the_results_are_written_takes_them_away(
    search: Start, home: Path
) -> None:
    out = home / "out"
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as said:
        process = search("--json-lines", stdout=said)
    with os.fdopen(reading, "rb") as reader:
        assert reader.readline()  # as `| head -1`
    while not (out / ".best.tmp").exists() and not (out / "best").exists() and process.poll() is None:
        time.sleep(0.001)

    group(process.pid)

    assert process.wait(timeout=60) == 0  # all trials had ended
    assert [trial.state.is_finished() for trial in read_study(out).trials] == [True, True, True]
    assert (out / "best" / "model.safetensors").is_file() and (out / "report.html").is_file()


def test_after_a_kill_of_the_search_alone_nothing_of_ray_is_left(search: Start, home: Path) -> None:
    process = search("--epochs", "3000", stdout=subprocess.DEVNULL)
    wait_for_an_epoch(process, home / "out")
    all_of_it = family(process.pid)

    os.kill(process.pid, signal.SIGKILL)

    process.wait()
    deadline = time.monotonic() + 5
    while running(all_of_it) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not running(all_of_it)


def test_a_reader_that_goes_does_not_end_a_search(search: Start, home: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as said:
        process = search(stdout=said)
    with os.fdopen(reading, "rb") as reader:
        assert reader.readline()  # as `| head -1`

    assert process.wait(timeout=200) == 0
    assert [trial.state.is_finished() for trial in read_study(home / "out").trials] == [True, True, True]
    assert (home / "out" / "best" / "model.safetensors").is_file() and (home / "out" / "report.html").is_file()


@pytest.mark.slow
def test_a_search_runs_without_output_and_error_and_where_temporary_files_lie_too_deep_for_sockets(
    drawn_leaves: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = home / ("a_long_name_" * 8)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    (home / "space.toml").write_text(SPACE)
    words = f"-m tune_cropshield search --space {home}/space.toml --data {drawn_leaves} --out {home}/out"

    done = subprocess.run(["sh", "-c", f"{sys.executable} {words} >&- 2>&-"], timeout=200, check=False)

    assert done.returncode == 0
    assert (home / "out" / "best" / "model.safetensors").is_file()
