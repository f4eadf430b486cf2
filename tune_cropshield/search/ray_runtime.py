"""A Ray runtime of our own: loopback only, no telemetry, no dashboard, silent, and gone when the search is."""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.search.ray_private import LOOPBACK_ONLY
from tune_cropshield.signals import ending_afterwards

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
# The path of a socket has at most 107 bytes (103 on macOS). Ray's longest one, below the folder for temporary files:
SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
LONGEST_TEMP_DIR = 103 - len(SOCKET)
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
        raise UserError(
            "another search is running in this process: wait until it ends, or start each search in its own process"
        )
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
        with ending_afterwards():
            import ray

        logging.getLogger("ray").setLevel(logging.ERROR)  # it would warn that it handles no signals: we do
        if ray.is_initialized():
            yield RayRuntime(None)
            return
        _protect_token()
        with ExitStack() as stack:
            if address is not None:
                _check_answers(address)
                stack.enter_context(_joined(address, f"--ray-address {address}: no Ray cluster answers there"))
                yield RayRuntime(None)
            else:
                address, session = stack.enter_context(_ray_of_our_own(num_cpus, num_gpus))
                stack.enter_context(_joined(address, "Ray does not answer on this machine"))
                yield RayRuntime(session)


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


@contextmanager
def _joined(address: str, otherwise: str) -> Iterator[None]:
    """Makes this process one of the Ray at `address` for as long as the block runs; raises UserError `otherwise`."""
    import ray

    try:
        with ending_afterwards():
            ray.init(address=address, **QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"{otherwise} ({str(error).splitlines()[0]})") from error
    try:
        yield
    finally:
        with ending_afterwards():  # it takes the handler of SIGTERM away
            ray.shutdown()


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


@contextmanager
def _ray_of_our_own(num_cpus: int, num_gpus: int) -> Iterator[tuple[str, Path]]:
    """Starts Ray on this machine in processes that are gone when the block ends, or this process does in any way.

    Yields its address and its folder. See `ray_head`, which is the parent of them all.

    Raises RunFailure when it does not start.
    """
    options = {
        "num_cpus": num_cpus,
        "num_gpus": num_gpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        **QUIET,
    }
    command = [sys.executable, "-m", "tune_cropshield.search.ray_head", json.dumps(options)]
    environment = {**os.environ, "RAY_TMPDIR": short_temp_dir()}
    for attempt in range(1, START_ATTEMPTS + 1):
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, env=environment
        ) as head:
            assert head.stdin is not None and head.stdout is not None
            session = None
            try:
                answer = json.loads(head.stdout.readline() or '{"error": "its process ended"}')
                if "error" not in answer:
                    session = Path(answer["session"])
                    yield answer["address"], session
                    return
            finally:
                head.stdin.close()  # which ends it
                if session is not None:
                    head.wait()
                    shutil.rmtree(session, ignore_errors=True)  # Ray leaves it in the system's temporary folder
        if attempt == START_ATTEMPTS:  # Ray gives up after 30 s, which a busy machine may well take
            raise RunFailure(f"Ray does not start on this machine, tried {attempt} times: {answer['error']}")


def short_temp_dir(folders: Sequence[str] | None = None) -> str:
    """Returns the first folder for temporary files that Ray's sockets can lie in: their paths are short by law.

    folders: the system's, and /tmp, when None. Raises UserError where none will do.
    """
    tried = folders if folders is not None else (tempfile.gettempdir(), "/tmp")
    for folder in tried:
        if os.name == "nt" or (len(os.fsencode(folder)) <= LONGEST_TEMP_DIR and os.access(folder, os.W_OK | os.X_OK)):
            return folder
    raise UserError(
        f"Ray's sockets need a folder for temporary files whose path has at most {LONGEST_TEMP_DIR} bytes and that can "
        f"be written to, but {' and '.join(tried)} will not do: set TMPDIR to another one"
    )


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
