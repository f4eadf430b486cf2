"""Whole searches: real Ray, real Optuna, a real command line, on drawn leaves."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from begun_search import Photographs, begun, prepared
from optuna.trial import TrialState
from safetensors.torch import load_file, save_file
from small_disks import mounted

from tune_cropshield.cli import main
from tune_cropshield.search.journal import read_study, unfinished
from tune_cropshield.search.ray_runtime import ray_runtime
from tune_cropshield.search.run import SearchOutcome, run_search, trial_worker
from tune_cropshield.training.clock import read_times
from tune_cropshield.training.run_folder import RunFolder, read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]  # a busy machine may take a minute to start Ray

TIMINGS = ("images_per_s", "data_wait_s", "epoch_s")
SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
schedule = "onecycle"
[space]
lr = {log = [1e-4, 3e-2]}
max_norm = {choice = ["none", 1.0]}
effective_batch = {choice = [16, 32]}
[baseline]
[search]
trials = 5
epochs = 4
grace_epochs = 1
reduction_factor = 2
[[start]]
lr = 1e-3
"""


@pytest.fixture
def search(drawn_leaves: Path, home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `search` on a copy of the drawn leaves with a space of its own; kills what is left of it afterwards."""
    started: list[subprocess.Popen[str]] = []
    leaves = shutil.copytree(drawn_leaves, home / "leaves")

    def start(*arguments: str, space: str = SPACE, out: Path = home / "out") -> subprocess.Popen[str]:
        (home / "space.toml").write_text(space)
        given = ["--space", str(home / "space.toml"), *([] if "--data" in arguments else ["--data", str(leaves)])]
        command = [sys.executable, "-m", "tune_cropshield", "search", *given, "--out", str(out), *arguments]
        environment = {**os.environ, "HOME": str(home)}  # Ray's secret is there
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=environment,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def num_epochs(out: Path) -> int:
    return sum(len(read_metrics(folder)) for folder in out.glob("t[0-9]*"))


def rows(out: Path) -> list[dict[str, str]]:
    with open(out / "trials.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def finished(study: optuna.Study) -> dict[int, tuple[TrialState, dict[int, float], dict[str, Any]]]:
    return {
        trial.number: (trial.state, trial.intermediate_values, trial.params)
        for trial in study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))
    }


def is_running(process: int) -> bool:
    """Tells whether a process is there and no zombie."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


def descendants(ancestor: int) -> list[int]:
    """Returns the running processes that descend from `ancestor`."""
    found = []
    for process in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()):
        with contextlib.suppress(OSError):
            if is_running(process) and descends_from(process, ancestor):
                found.append(process)
    return found


def listening_addresses() -> set[str]:
    """The local addresses on which Ray's processes listen."""
    output = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True, check=False).stdout
    return {
        line.split()[3].rsplit(":", 1)[0]
        for line in output.splitlines()
        if "ray" in line or "gcs" in line or "python" in line
    }


def test_a_search_ends_with_a_table_a_best_configuration_and_weights_that_train_again_to_the_last_digit(
    search: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    process = search()
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    out = home / "out"
    table = rows(out)
    assert [row["trial"] for row in table] == ["0", "1", "2", "3", "4"]
    assert {row["state"] for row in table} <= {"COMPLETE", "PRUNED"}
    # The guide's setting, trained to its end however bad it is.
    assert (float(table[0]["lr"]), table[0]["max_norm"], table[0]["effective_batch"]) == (1e-4, "none", "32")
    assert (table[0]["state"], table[0]["epochs"]) == ("COMPLETE", "4")
    assert float(table[1]["lr"]) == 1e-3  # the partial starting point

    winner = max(table, key=lambda row: (float(row["best_val_acc"]), -int(row["trial"])))
    metrics = json.loads((out / "best" / "metrics.json").read_text())
    assert metrics["val_acc"] == float(winner["best_val_acc"])
    assert metrics["epoch"] == int(winner["best_epoch"])
    names = sorted(path.name for path in (out / "best").iterdir())
    assert names == [
        "classes.json",
        "config.json",
        "config.toml",
        "metrics.json",
        "model.safetensors",
        "origin.json",
        "predictions.csv",
        "preparation.json",
        "retrain.ps1",
        "retrain.sh",
        "split.csv",
    ]
    assert (out / "best" / "retrain.sh").stat().st_mode & 0o111

    # What Optuna is told is what happened.
    study = read_study(out)
    for trial, row in zip(study.trials, table, strict=True):
        assert trial.state.name == row["state"]
        assert max(trial.intermediate_values) == int(row["epochs"])
        accuracies = [line["val_acc"] for line in read_metrics(out / f"t{trial.number:03d}")]
        assert list(trial.intermediate_values.values()) == [
            max(accuracies[: count + 1]) for count in range(len(accuracies))
        ]
    assert not list(out.glob("t*/last.pt"))  # no checkpoint is needed any more
    assert f"report: {out / 'report.html'}\n" in output
    assert (out / "report.html").stat().st_size > 4e6  # with plotly's script

    # The ledger: what two slots had of seconds, no more and no less, and the steps are those of the metrics.
    ledger = json.loads((out / "ledger.json").read_text())["whole"]
    assert ledger["slots"] == 2
    assert sum(ledger["parts"].values()) + ledger["idle_s"] == pytest.approx(2 * ledger["wall_s"])
    assert ledger["idle_s"] >= -0.02 * 2 * ledger["wall_s"]
    trained = [line for folder in out.glob("t[0-9]*") for line in read_metrics(folder)]
    assert ledger["parts"]["step"] + ledger["parts"]["data_wait"] + ledger["parts"]["evaluation"] == pytest.approx(
        sum(line["epoch_s"] for line in trained), rel=0.05
    )
    assert f"{ledger['wall_s']:.0f} s with 2 trials in parallel: " in output

    # Different settings, different weights.
    first, second = (load_file(out / name / "model.safetensors")["classifier.weight"] for name in ("t000", "t001"))
    assert not torch.equal(first, second)

    retrained = subprocess.run(
        [
            sys.executable,
            "-m",
            "tune_cropshield",
            "train",
            "--config",
            str(out / "best" / "config.toml"),
            "--out",
            str(home / "again"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert retrained.returncode == 0, retrained.stderr
    again = read_metrics(home / "again")[metrics["epoch"] - 1]
    assert (again["val_acc"], again["val_loss"]) == (metrics["val_acc"], metrics["val_loss"])


def test_a_search_interrupted_then_killed_has_lost_and_repeated_nothing_and_can_be_extended(
    search: Callable[..., subprocess.Popen[str]], home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = home / "out"
    process = search("--trials", "6", "--epochs", "30")  # long enough to be killed under way, on any machine
    wait_for(lambda: num_epochs(out) >= 7, 120)
    assert listening_addresses() <= {"127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"}
    assert (home / ".ray" / "auth_token").stat().st_mode & 0o777 == 0o600
    processes = descendants(process.pid)
    assert len(processes) >= 4
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "--resume" in output
    wait_for(lambda: not any(is_running(left) for left in processes), 20)
    under_way = [out / f"t{trial.number:03d}" for trial in unfinished(read_study(out))]
    saved = {folder.name: RunFolder(folder).checkpoint()[0] for folder in under_way if read_metrics(folder)}
    trained = {folder.name: read_metrics(folder)[-1]["epoch"] for folder in under_way if read_metrics(folder)}
    assert {
        name: state["progress"]["metrics"]["epoch"] for name, state in saved.items() if state is not None
    } == trained  # no epoch is lost
    assert (out / "best" / "config.toml").exists()
    assert (out / "report.html").exists()
    before = finished(read_study(out))

    process = search("--epochs", "30", "--resume")
    epochs_before = num_epochs(out)
    wait_for(lambda: num_epochs(out) >= epochs_before + 4, 120)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    study = read_study(out)
    between = finished(study)
    assert {number: between[number] for number in before} == before  # nothing finished is touched
    parameters = {trial.number: trial.params for trial in study.trials if trial.params}

    moved = (home / "leaves").rename(home / "moved")
    process = search("--resume", "--trials", "7", "--data", str(moved))
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    study = read_study(out)
    after = finished(study)
    assert sorted(after) == list(range(7))
    assert {number: after[number] for number in between} == between
    assert all(study.trials[number].params == params for number, params in parameters.items())
    for trial in study.trials:
        assert [line["epoch"] for line in read_metrics(out / f"t{trial.number:03d}")] == sorted(
            trial.intermediate_values
        )

    # All of it looks for the photographs where they were moved to, also the trials that had ended before.
    assert json.loads((out / "best" / "config.json").read_text())["data"]["dir"] == str(moved)
    for command in (["evaluate", "best"], ["evaluate", "t000", "--split", "test"], ["report", "."], ["confirm", "."]):
        more = ["--top", "1", "--seeds", "2", "--device", "cpu"] if command[0] == "confirm" else []
        code = main([command[0], str(out / command[1]), *command[2:], *more])
        told = capsys.readouterr()
        assert code == 0, told.err
        assert f"{home / 'leaves'}" not in told.out
        page = (out / "report.html").read_text(encoding="utf-8").replace("<wbr>", "")
        assert f"from {moved}" in page
        assert "cannot be shown" not in page
        assert "data:image/jpeg" in page


@pytest.fixture(scope="module")
def runtime() -> Iterator[None]:
    """One Ray for the searches below."""
    with ray_runtime(2, 0, None):
        yield


def search_here(
    space_text: str, leaves: Path, cache: Path, out: Path, worker: Callable[[], type[Any]] = trial_worker
) -> SearchOutcome:
    """Searches in this process, one trial at a time."""
    out.mkdir()
    found = prepared(Photographs(leaves, cache), out.with_suffix(".toml"), space_text)
    return run_search(begun(found, out), worker)


def test_a_trial_that_diverges_is_pruned_with_its_reason_and_the_search_goes_on(
    runtime: None, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    space = SPACE.replace("lr = {log = [1e-4, 3e-2]}", "lr = {choice = [1e-4, 1e30]}").replace(
        'schedule = "onecycle"', 'schedule = "constant"\nwarmup_epochs = 0.0\noptimizer = "sgd"'
    )
    space = (
        space.replace("lr = 1e-3\n", 'lr = 1e30\nmax_norm = "none"\n')
        .replace("trials = 5", "trials = 2")
        .replace("epochs = 4", "epochs = 2")
    )
    outcome = search_here(space, drawn_leaves, shared_cache, tmp_path / "out")
    guide, diverged = rows(tmp_path / "out")
    assert (guide["state"], guide["lr"]) == ("COMPLETE", "0.0001")
    assert (diverged["state"], diverged["outcome"], diverged["lr"]) == ("PRUNED", "diverged", "1e+30")
    assert "stopped being finite in epoch" in diverged["reason"]
    assert not outcome.study.get_trials(states=(TrialState.RUNNING,))


def test_a_trial_whose_worker_is_killed_goes_on_from_its_checkpoint(
    runtime: None, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    def kill_the_worker() -> None:
        wait_for(lambda: num_epochs(out) >= 3, 100)
        worker = read_times(out / "t000")[-1]["worker"]
        os.kill(worker, signal.SIGKILL)
        killed.append(worker)

    killed: list[int] = []
    killer = threading.Thread(target=kill_the_worker)
    killer.start()
    space = SPACE.replace("trials = 5", "trials = 1").replace("epochs = 4", "epochs = 60")
    outcome = search_here(space, drawn_leaves, shared_cache, out)
    killer.join()
    assert killed != [os.getpid()] and read_times(out / "t000")[-1]["worker"] not in (*killed, os.getpid())
    assert sorted(finished(outcome.study)) == [0]
    assert [line["epoch"] for line in read_metrics(out / "t000")] == list(range(1, 61))


def test_a_trial_whose_worker_dies_before_it_runs_is_started_again(
    runtime: None, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    outcome = search_here(
        SPACE.replace("trials = 5", "trials = 3"), drawn_leaves, shared_cache, tmp_path / "out", worker=worker_that_dies
    )
    assert (tmp_path / "out" / "t001" / "died").exists()
    assert sorted(finished(outcome.study)) == [0, 1, 2]
    assert [row["reason"] for row in rows(tmp_path / "out")] == ["", "", ""]


@pytest.mark.slow
def test_why_workers_cannot_begin_is_told(
    runtime: None, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    outcome = search_here(SPACE, drawn_leaves, shared_cache, tmp_path / "out", worker=worker_without_its_module)
    assert outcome.failed
    assert outcome.stopped == (
        "no trial can begin: its worker process died: ModuleNotFoundError: No module named 'nowhere'"
    )


def worker_without_its_module() -> type[Any]:
    """A worker that needs a module which its process does not find."""
    from tune_cropshield.search.worker import TrialWorker

    class LostWorker(TrialWorker):
        def setup(self, *given: Any, **more: Any) -> None:
            import nowhere  # type: ignore[import-not-found]  # noqa: F401

    return LostWorker


def worker_that_dies() -> type[Any]:
    """A worker that dies when it is to take up trial 1, once."""
    from tune_cropshield.search.worker import TrialWorker

    class MortalWorker(TrialWorker):
        def reset_config(self, new_config: dict[str, Any]) -> bool:
            mark = Path(new_config["folder"]) / "died"
            if new_config["number"] == 1 and not mark.exists():
                mark.parent.mkdir(exist_ok=True)
                mark.touch()
                os._exit(1)
            return bool(super().reset_config(new_config))

    return MortalWorker


def deaf_worker() -> type[Any]:
    """A worker that trains every trial with the settings of its first."""
    from tune_cropshield.search.worker import TrialWorker

    class DeafWorker(TrialWorker):
        def _start(self, config: dict[str, Any]) -> None:
            self.first = getattr(self, "first", config["run"])
            super()._start({**config, "run": self.first})

    return DeafWorker


def test_a_search_whose_settings_do_not_reach_the_training_ends_and_names_both_trials(
    runtime: None, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    outcome = search_here(SPACE, drawn_leaves, shared_cache, tmp_path / "out", deaf_worker)
    assert outcome.failed
    assert outcome.stopped is not None
    assert re.match(
        r"trials \d and \d have identical weights although they differ in .*lr \(\S+ and \S+\)", outcome.stopped
    ), outcome.stopped
    assert len(rows(tmp_path / "out")) < 5


def test_on_one_worker_the_same_seed_gives_the_same_search_to_the_last_digit(
    runtime: None, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    for name, seed, trials in (("a", 0, 5), ("b", 0, 5), ("c", 1, 2)):
        settings = f"trials = {trials}\nseed = {seed}"
        search_here(SPACE.replace("trials = 5", settings), drawn_leaves, shared_cache, tmp_path / name)
    tables = [[{k: v for k, v in row.items() if k not in TIMINGS} for row in rows(tmp_path / name)] for name in "abc"]
    assert [len(table) for table in tables] == [5, 5, 2]
    assert tables[0] == tables[1]
    assert tables[0][:2] != tables[2]
    digests = [
        [(tmp_path / name / f"t{number:03d}" / "model.sha256").read_text() for number in range(5)] for name in "ab"
    ]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == 5


def test_a_full_disk_ends_a_search_whole_and_it_goes_on_when_there_is_space(
    search: Callable[..., subprocess.Popen[str]], home: Path
) -> None:
    with mounted(home / "disk", "size=3000k") as disk:
        out = disk / "out"
        process = search("--trials", "8", "--trials-per-gpu", "1", out=out)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 2, output
        told = [line for line in output.splitlines() if line.startswith("error: ")]
        assert len(told) == 1 and told[0].startswith("error: no space left on the disk while writing "), output
        assert "Traceback" not in output
        study = read_study(out)
        before = finished(study)
        assert any(trial.intermediate_values for trial in study.trials) and len(before) < 8
        assert not list(out.rglob(".*.tmp"))
        assert all(path.read_text().endswith("\n") or not path.read_text() for path in out.rglob("*.jsonl"))

        subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        process = search("--resume", out=out)
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0, output
        after = finished(read_study(out))
        assert sorted(after) == list(range(8))
        assert {number: after[number] for number in before} == before


def descends_from(process: int, ancestor: int) -> bool:
    """Tells whether `process` descends from `ancestor`."""
    while process > 1:
        process = int(Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
        if process == ancestor:
            return True
    return False


def test_three_trials_that_fail_in_the_same_way_end_the_search_with_that_reason(
    runtime: None, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.safetensors"
    save_file({"nothing": torch.zeros(1)}, weights)
    outcome = search_here(
        SPACE.replace("[space]", f'pretrained = "{weights}"\n[space]'), drawn_leaves, shared_cache, tmp_path / "out"
    )
    assert outcome.failed
    assert outcome.stopped is not None and outcome.stopped.startswith("the first 3 trials all failed: ")
    assert "does not fit this model" in outcome.stopped
    assert "does not fit this model" in (tmp_path / "out" / "t000" / "error.txt").read_text()
    assert [trial.state for trial in outcome.study.trials[:3]] == [TrialState.FAIL] * 3
    assert len(rows(tmp_path / "out")) < 5


def test_trials_in_folds_are_trained_judged_and_told_by_their_means(
    runtime: None, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    space = SPACE.replace("trials = 5", "trials = 4\nfolds = 2").replace("epochs = 4", "epochs = 2")
    outcome = search_here(space, drawn_leaves, shared_cache, tmp_path / "out")

    assert [trial.state.is_finished() for trial in outcome.study.trials] == [True] * 4
    reference = outcome.study.trials[0]
    assert list(reference.intermediate_values) == [1, 2, 3, 4]
    lines = [read_metrics(tmp_path / "out" / "t000" / part) for part in ("part0", "part1")]
    best = [max(line["val_acc"] for line in of_part) for of_part in lines]
    assert reference.value == (best[0] + best[1]) / 2
    table = rows(tmp_path / "out")
    assert [row["parts"] for row in table if row["state"] == "COMPLETE"] == ["2"] * len(
        [trial for trial in outcome.study.trials if trial.state == TrialState.COMPLETE]
    )
    assert {row["epochs"] for row in table if row["state"] == "PRUNED"} <= {"1", "2"}  # a part's end is a pruning step
