"""`tune_cropshield.search` in scripts as people write them: no `if __name__`, in the folder they happen to be in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tune_cropshield as tc

ROOT = Path(__file__).parents[2]
SPACE: dict[str, Any] = {
    "trial": {
        "model": "tiny_cnn",
        "image_size": 32,
        "augment": "none",
        "schedule": "constant",
        "warmup_epochs": 0.0,
    },
    "space": {"lr": {"log": [1e-3, 1e-2]}, "effective_batch": {"choice": [16, 32]}},
    "baseline": {},
    "search": {"trials": 2, "epochs": 2, "grace_epochs": 1, "trials_per_gpu": 1, "device": "cpu"},
}


@pytest.fixture
def start(home: Path, drawn_leaves: Path) -> Callable[[str], subprocess.Popen[str]]:
    """Starts a script in a folder of its own; `data`, `space` and `tc` are there."""

    def start(code: str) -> subprocess.Popen[str]:
        head = f"import tune_cropshield as tc\nspace = {SPACE!r}\ndata = {str(drawn_leaves)!r}\n"
        (home / "script.py").write_text(head + code)
        return subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=home,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_a_script_searches_at_its_top_level_and_goes_on_in_a_thread(
    start: Callable[[str], subprocess.Popen[str]], home: Path
) -> None:
    script = start(
        """
results = tc.search(data=data, space=space, out="out", progress=False)
again = tc.open_search("out")
assert again.trials == results.trials and again.curves == results.curves
more = []
import threading
thread = threading.Thread(
    target=lambda: more.append(tc.search(out="out", resume=True, trials=3, progress=False))
)
thread.start()
thread.join()
import json
print(json.dumps({
    "folder": str(results.folder),
    "ends": [results.stopped, results.interrupted, results.failed],
    "trials": [[row["trial"], row["state"], row["epochs"]] for row in results.trials],
    "more": [row["trial"] for row in more[0].trials],
    "best": results.best.val_acc,
    "rows": max(row["best_val_acc"] for row in results.trials),
    "predicted": len(tc.predict(results.best.folder, data + "/rust")),
}))
"""
    )
    out, err = script.communicate(timeout=200)

    assert script.returncode == 0, err
    (line,) = out.splitlines()  # progress=False: nothing else is said
    told = json.loads(line)
    assert told["folder"] == str(home / "out")
    assert told["ends"] == [None, False, False]
    assert [number for number, _, _ in told["trials"]] == [0, 1]
    assert all(state in ("COMPLETE", "PRUNED") for _, state, _ in told["trials"])
    assert told["more"] == [0, 1, 2]
    assert told["best"] == told["rows"]
    assert told["predicted"] == 30
    assert (home / "out" / "best" / "model.safetensors").is_file()
    started = [json.loads(line)["argv"] for line in (home / "out" / "starts.jsonl").read_text().splitlines()]
    assert started[0][:2] == ["search", "--data"] and started[0][3:] == ["--out", "out"]
    assert started[1] == ["search", "--trials", "3", "--out", "out", "--resume"]


def has_a_result(folder: Path) -> bool:
    try:
        return tc.open_search(folder).best is not None
    except tc.UserError:  # not begun yet
        return False


@pytest.mark.ray
@pytest.mark.timeout(240)
def test_ctrl_c_ends_a_search_with_a_live_table_and_its_results_are_returned(
    start: Callable[[str], subprocess.Popen[str]], home: Path
) -> None:
    script = start(
        """
from rich.console import Console
from tune_cropshield.search.views.live import LiveView
terminal = open("screen", "w")
view = LiveView(Console(file=terminal, force_terminal=True, width=120))
results = tc.search(data=data, space=space, out="out", epochs=5000, progress=view)
terminal.close()
print(results.interrupted, results.stopped, len(results.curves) > 0, results.best is not None)
"""
    )
    deadline = time.monotonic() + 150
    while not has_a_result(home / "out") and script.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)

    try:
        script.send_signal(signal.SIGINT)
        out, err = script.communicate(timeout=60)
    finally:
        script.kill()

    assert script.returncode == 0, err
    assert out == "True interrupted True True\n"
    assert "ended early: interrupted. To continue:" in (home / "screen").read_text()
