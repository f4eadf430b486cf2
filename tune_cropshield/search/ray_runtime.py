"""A Ray runtime of our own: loopback only, no telemetry, no dashboard, silent, and gone when the search is."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.search.ray_private import LOOPBACK_ONLY

# Read by Ray when it is imported or started; none of them is a setting of ours.
ENVIRONMENT = {
    **LOOPBACK_ONLY,
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    # under `uv run`, Ray would pack the whole folder and build an environment of it for the workers
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
    "RAY_AIR_NEW_OUTPUT": "0",  # we print our own progress
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # as later versions do anyway: Ray would warn of the change
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the search with what it has
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Ray's snapshots are never read: the journal is the state
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports no accuracy
}
OBJECT_STORE_BYTES = 100 * 2**20  # only configurations travel; the pictures are memory-mapped

LOGS = ("worker-*", "raylet.*", "gcs_server.*")  # of Ray's own, those that tell why a process died
START_ATTEMPTS = 3
ANSWER_WITHIN_S = 5.0
EXCEPTION = re.compile(r"^((?:\w+\.)*\w+(?:Error|Exception|Exit|Interrupt)\b.*)$", re.MULTILINE)
PROCESS = re.compile(r"^\s*pid: (\d+)$", re.MULTILINE)
QUIET = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}


class RayRuntime:
    """Ray, running. session: its folder, where it is a Ray of our own and not a cluster that was joined."""

    def __init__(self, session: Path | None) -> None:
        self._session = session

    def keep_logs(self, folder: Path) -> None:
        """Copies what Ray and the trials' processes have logged on this machine into `folder`.

        Logs that are empty are left out.
        """
        with suppress(OSError):  # a full disk, say: nothing depends on them
            logs = [path for pattern in LOGS for path in self._logs(pattern) if path.stat().st_size]
            folder.mkdir(exist_ok=True)
            for path in logs:
                shutil.copyfile(path, folder / path.name)

    def why_it_died(self, error: str) -> str | None:
        """Returns why a worker's process died, in one line: the exception that ended it, else the last line of its log.

        Args:
            error: what Ray says of it: a traceback, or that it died unexpectedly and which process it was.

        Returns:
            None where neither tells.
        """
        if exceptions := EXCEPTION.findall(error):
            return str(exceptions[-1])
        process = PROCESS.search(error)
        logs = self._logs(f"worker-*-{process[1]}.err") if process is not None else []
        with suppress(OSError):
            lines = [line.strip() for path in logs for line in path.read_text(errors="replace").splitlines()]
            return next((line for line in reversed(lines) if line), None)
        return None

    def _logs(self, pattern: str) -> list[Path]:
        return sorted((self._session / "logs").glob(pattern)) if self._session is not None else []


_used = threading.RLock()  # by the thread of this process that searches


@contextmanager
def _alone() -> Iterator[None]:
    """Raises UserError where another thread of this process is inside: Ray is one for the whole process."""
    if not _used.acquire(blocking=False):
        raise UserError("another search is running in this process: wait for its end, or search in a process each")
    try:
        yield
    finally:
        _used.release()


@contextmanager
def ray_runtime(num_cpus: int, num_gpus: int, address: str | None = None) -> Iterator[RayRuntime]:
    """Starts Ray on this machine, or joins the cluster at `address`, for as long as the block runs.

    Where Ray runs already, that one is used.

    Its processes import modules from where this one does: also from a checkout that is not installed, and from the
    folder of a user's own script.

    Raises:
        RunFailure: Ray does not start.
        UserError: nothing answers at `address`, or another thread of this process is searching.
    """
    with _alone(), _environment({**ENVIRONMENT, "PYTHONPATH": _import_path()}):
        with _interrupted_afterwards():
            import ray

        logging.getLogger("ray").setLevel(logging.ERROR)  # it would warn that it handles no signals: we do
        if ray.is_initialized():
            yield RayRuntime(None)
            return
        session = None
        try:
            with _interrupted_afterwards():
                if address is None:
                    session = _init(num_cpus, num_gpus)
                else:
                    _join(address)
            yield RayRuntime(session)
        finally:
            ray.shutdown()
            if session is not None:
                shutil.rmtree(session, ignore_errors=True)  # Ray leaves it in the system's temporary folder


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Raises KeyboardInterrupt at the block's end where Ctrl-C or SIGTERM came inside; a second one raises it at once.

    A KeyboardInterrupt in the midst of Ray's start, which takes seconds, is lost in one of its imports or callbacks, or
    Ray hangs. Afterwards the signals' handlers are the old ones: Ray sets one for SIGTERM, which exits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    for number, handler in handlers.items():
        if callable(handler):  # else it is ignored, or ends the process by itself
            signal.signal(number, note)
    try:
        yield
    except SystemExit:  # from Ray's handler
        raise KeyboardInterrupt from None
    finally:
        for number, handler in handlers.items():
            if handler is not None:  # it was set by Python
                signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


def _import_path() -> str:
    """Returns this process's `sys.path` as PYTHONPATH spells it.

    Folders stand with their whole names, since "" and relative ones mean something else in another process.
    """
    return os.pathsep.join(dict.fromkeys(os.path.abspath(folder) for folder in sys.path))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for as long as the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _join(address: str) -> None:
    import ray

    _protect_token()
    _check_answers(address)
    try:
        ray.init(address=address, **QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"--ray-address {address}: no Ray cluster answers there ({str(error).splitlines()[0]})"
        ) from error


def _check_answers(address: str) -> None:
    """Raises UserError where nothing listens at `address`, host:port: Ray would go on asking for minutes.

    Other forms are Ray's business.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--ray-address {address}: nothing answers there ({error})") from error


def _init(num_cpus: int, num_gpus: int) -> Path:
    """Starts Ray and returns its folder."""
    import ray

    _protect_token()
    own: dict[str, Any] = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            return Path(ray.init(address="local", **QUIET, **own).address_info["session_dir"])
        except Exception as error:  # Ray raises a bare Exception after 30 s, which a busy machine may well take
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise RunFailure(
                    f"Ray does not start on this machine, tried {START_ATTEMPTS} times: {error}"
                ) from error
    raise AssertionError("unreachable")


def _protect_token() -> None:
    """Makes sure that there is a token for Ray which nobody else may read.

    Ray itself would write one that everybody may.
    """
    token = Path.home() / ".ray" / "auth_token"
    try:
        token.parent.mkdir(exist_ok=True)
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        token.chmod(0o600)
    except OSError as error:
        raise UserError(
            f"{token}, where Ray keeps its secret, cannot be written ({error.strerror}): set HOME to a folder of yours"
        ) from None
