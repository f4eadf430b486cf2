"""A real TensorBoard on a free loopback port, and questions to its HTTP API."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_S = 90.0  # on a busy machine
ALL_STATES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


class TensorBoard:
    """What a running TensorBoard says. `output` is where it logs."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/data/plugin/"

    def get(self, path: str) -> Any:
        """Returns the answer to a GET of /data/plugin/`path`."""
        with urllib.request.urlopen(self._url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str, **question: Any) -> Any:
        """Returns the answer to a POST of `question`."""
        request = urllib.request.Request(
            self._url + path,
            json.dumps({"experimentName": "", **question}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def trials(self) -> dict[str, dict[str, Any]]:
        """Returns {run: {"status", "hparams", "metrics"}} of the HParams tab."""
        groups = self.post(
            "hparams/session_groups", allowedStatuses=ALL_STATES, colParams=[], startIndex=0, sliceSize=1000
        )["sessionGroups"]
        found = {}
        for group in groups:
            (session,) = group["sessions"]
            metrics = {value["name"]["tag"]: value["value"] for value in session.get("metricValues", [])}
            found[session["name"]] = {
                "status": session.get("status", "STATUS_UNKNOWN"),
                "hparams": group["hparams"],
                "metrics": metrics,
            }
        return found

    def wait_for_runs(self, count: int) -> None:
        """Waits until the scalars of `count` runs are loaded."""
        self._wait_until(lambda: len(self.get("scalars/tags")) >= count)

    def _wait_until(self, condition: Any) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                if condition():
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                pass
            assert time.monotonic() < deadline, "TensorBoard did not answer in time"
            time.sleep(0.2)


@contextmanager
def tensorboard(logdir: Path, *flags: str) -> Iterator[TensorBoard]:
    """Runs TensorBoard on `logdir` as the search's `board` line says, for as long as the block lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("tensorboard")),
        "--logdir",
        str(logdir),
        "--port",
        str(port),
        "--reload_interval",
        "1",
        *flags,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield TensorBoard(port)
    finally:
        process.terminate()
        process.wait(timeout=30)
