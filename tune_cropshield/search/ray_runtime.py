"""A Ray runtime of our own: loopback only, no telemetry, no dashboard, silent, and gone when the search is."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.search.warm_up import load_what_trials_need

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
}
OBJECT_STORE_BYTES = 100 * 2**20  # only configurations travel; the pictures are memory-mapped

START_ATTEMPTS = 3


@contextmanager
def ray_runtime(
    num_cpus: int, num_gpus: int, address: str | None, warm_workers: int = 0, worker_modules: tuple[str, ...] = ()
) -> Iterator[Callable[[], None]]:
    """Starts Ray on this machine, or joins the cluster at `address`, for as long as the block runs. Inside another such block it uses that one's.

    It starts in the background, since most of its seconds are waiting: the block begins at once, and calls what it is given before it uses Ray.
    That call returns when Ray is there; it raises RunFailure when it does not start and UserError when nothing answers at `address`.
    warm_workers: so many processes on this machine then load what trials need, and `worker_modules`, before there are any.
    """
    os.environ.update(ENVIRONMENT)
    import ray

    if ray.is_initialized():
        yield lambda: None
        return
    started, over = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def live() -> None:
        try:
            _init(num_cpus, num_gpus, address)
            if address is None:
                load = ray.remote(num_cpus=max(num_cpus // max(warm_workers, 1), 1))(load_what_trials_need)
                for _ in range(warm_workers):
                    load.remote(worker_modules)  # a trial's actor takes the process over; what fails there fails in the trial too
            importlib.import_module("ray.tune")
        except BaseException as error:
            failures.append(error)
        started.set()
        over.wait()  # on Linux, Ray's processes are killed when the thread that started them ends
        ray.shutdown()

    def ready() -> None:
        started.wait()
        if failures:
            raise failures[0]

    thread = threading.Thread(target=live, name="ray")
    thread.start()
    try:
        yield ready
    finally:
        over.set()
        thread.join()


def _init(num_cpus: int, num_gpus: int, address: str | None) -> None:
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)  # it would warn that it handles no signals: we do
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    _protect_token()
    if address is not None:
        try:
            ray.init(address=address, **quiet)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--ray-address {address}: no Ray cluster answers there ({str(error).splitlines()[0]})") from error
        return
    own = {"num_cpus": num_cpus, "num_gpus": num_gpus, "object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(address="local", **quiet, **own)
            return
        except Exception as error:  # Ray raises a bare Exception after 30 s, which a busy machine may well take
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise RunFailure(f"Ray does not start on this machine, tried {START_ATTEMPTS} times: {error}") from error


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
