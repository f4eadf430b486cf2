"""A Ray runtime of our own: loopback only, no telemetry, no dashboard, silent, and gone when the search is."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.search.warm_up import WarmUp

# Read by Ray when it is imported or started; none of them is a setting of ours.
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # makes every socket bind to the loopback address: otherwise Ray listens on all interfaces
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # under `uv run`, Ray would pack the whole folder and build an environment of it for the workers
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths keep their meaning in workers
    "RAY_AIR_NEW_OUTPUT": "0",  # we print our own progress
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # do not hide the GPU from workers that were promised none of it
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # ours ends the search with what it has
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "100000",  # Ray's snapshots are never read: the journal is the state
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports no accuracy
    "RAY_prestart_worker_first_driver": "0",  # it would start a process per core that no trial uses
    "RAY_idle_worker_killing_time_threshold_ms": "3600000",  # those that wait for trials are kept
}
# Ray Tune asks for this environment for its trials, and Ray starts another process for whoever asks for another.
WORKER_ENVIRONMENT = {"PL_DISABLE_FORK": "1", "RAY_CHDIR_TO_TRIAL_DIR": ENVIRONMENT["RAY_CHDIR_TO_TRIAL_DIR"]}
OBJECT_STORE_BYTES = 100 * 2**20  # only configurations travel; the pictures are memory-mapped

LOGS = ("worker-*", "raylet.*", "gcs_server.*")  # of Ray's own, those that tell why a process died
START_ATTEMPTS = 3
ANSWER_WITHIN_S = 5.0
START_ASKED_S = 0.2  # for Ray to begin with a process, which then takes at least half a second to be up
QUIET = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}


class RayRuntime:
    """Ray, which starts in the background: most of the seconds are waiting."""

    def __init__(self) -> None:
        self._asked, self._started, self._over = threading.Event(), threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._session: Path | None = None  # Ray's folder, where it is our own Ray

    def start(self, init: Callable[[], Path | None], warm_up: Callable[[], None]) -> None:
        """Starts Ray by `init`, which returns its folder where it is our own, has `warm_up` called when it is there, and loads Ray Tune."""

        def live() -> None:
            try:
                self._session = init()
                warm_up()
                self._asked.set()
                importlib.import_module("ray.tune")
            except BaseException as error:
                self._failure = error
            self._asked.set()
            self._started.set()
            self._over.wait()  # on Linux, Ray's processes are killed when the thread that started them ends
            importlib.import_module("ray").shutdown()

        self._thread = threading.Thread(target=live, name="ray")
        self._thread.start()

    def processes_asked(self) -> None:
        """Returns when the processes that wait for trials are under way, or Ray does not start (which `ready` tells)."""
        if self._thread is not None:
            self._asked.wait()

    def ready(self) -> None:
        """Returns when Ray is there. Raises RunFailure when it does not start and UserError when nothing answers at its address."""
        if self._thread is not None:
            self._started.wait()
            if self._failure is not None:
                raise self._failure

    def keep_logs(self, folder: Path) -> None:
        """Copies what Ray and the trials' processes have logged on this machine into `folder`; those that are empty are left out."""
        if (session := self._session) is None:
            return
        with suppress(OSError):  # a full disk, say: nothing depends on them
            logs = [path for pattern in LOGS for path in sorted((session / "logs").glob(pattern)) if path.stat().st_size]
            folder.mkdir(exist_ok=True)
            for path in logs:
                shutil.copyfile(path, folder / path.name)

    def close(self) -> None:
        """Ends Ray. This thread waits meanwhile: where one of Ray's objects ends after Ray, the whole process does."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self._session is not None:
            shutil.rmtree(self._session, ignore_errors=True)  # Ray leaves it in the system's temporary folder


@contextmanager
def ray_runtime(
    num_cpus: int, num_gpus: int | None, address: str | None, warm_workers: int = 0, warm_up: WarmUp | None = None
) -> Iterator[RayRuntime]:
    """Starts Ray on this machine, or joins the cluster at `address`, for as long as the block runs. Inside another such block it uses that one's.

    The block begins at once, and calls `ready` before it uses Ray. num_gpus: None for as many as Ray finds.
    warm_workers: so many processes on this machine do `warm_up` meanwhile, before there are any trials for them.
    """
    os.environ.update(ENVIRONMENT)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # it would warn that it handles no signals: we do
    runtime = RayRuntime()
    if not ray.is_initialized() and address is not None:
        runtime.start(lambda: _join(address), lambda: None)
    elif not ray.is_initialized():
        runtime.start(lambda: _init(num_cpus, num_gpus, warm_up), lambda: _start_processes(warm_workers))
    try:
        yield runtime
    finally:
        runtime.close()


def _join(address: str) -> None:
    import ray

    _protect_token()
    _check_answers(address)
    try:
        ray.init(address=address, **QUIET)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"--ray-address {address}: no Ray cluster answers there ({str(error).splitlines()[0]})") from error


def _check_answers(address: str) -> None:
    """Raises UserError where nothing listens at `address`, host:port: Ray would go on asking for minutes. Other forms are Ray's business."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--ray-address {address}: nothing answers there ({error})") from error


def _init(num_cpus: int, num_gpus: int | None, warm_up: WarmUp | None) -> Path:
    """Starts Ray and returns its folder."""
    import ray

    _protect_token()
    own: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    if warm_up is not None:
        own["runtime_env"] = {"worker_process_setup_hook": lambda: warm_up.run()}  # a function, and no method, for Ray asks its name
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(address="local", **QUIET, **own)
            return Path(ray._private.worker._global_node.get_session_dir_path())
        except Exception as error:  # Ray raises a bare Exception after 30 s, which a busy machine may well take
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise RunFailure(f"Ray does not start on this machine, tried {START_ATTEMPTS} times: {error}") from error
    raise AssertionError("unreachable")


class _NeverUp:
    """An actor that is killed before its process is up."""


def _start_processes(number: int) -> None:
    """Has Ray start `number` processes that the first trials' actors take over.

    Ray gives an actor no process that has run a task. But one that it starts for an actor that is killed before the process is up stays, free for
    another actor of the same environment. Where the kill comes too late or too early no process waits, and the trial's is started with the trial.
    """
    import ray

    never_up = ray.remote(num_cpus=0, runtime_env={"env_vars": WORKER_ENVIRONMENT})(_NeverUp)
    actors = [never_up.remote() for _ in range(number)]
    time.sleep(START_ASKED_S if actors else 0.0)
    for actor in actors:
        ray.kill(actor)


def _protect_token() -> None:
    """Makes sure that there is a token for Ray which nobody else may read: Ray itself would write one that everybody may."""
    token = Path.home() / ".ray" / "auth_token"
    try:
        token.parent.mkdir(exist_ok=True)
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        token.chmod(0o600)
    except OSError as error:
        raise UserError(f"{token}, where Ray keeps its secret, cannot be written ({error.strerror}): set HOME to a folder of yours") from None
