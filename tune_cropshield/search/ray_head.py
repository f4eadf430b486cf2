"""The parent of Ray's processes: python -m tune_cropshield.search.ray_head OPTIONS, started by `ray_runtime`.

It has a session of its own, so that Ctrl-C and signals to the search's process group do not reach Ray, which would take
the trials down before the search has ended in order. The signals that a whole job gets (systemd, a batch system) are
blocked here and, by inheritance, in Ray. When the search closes our standard input, as it does by ending in whatever
way, everything here is killed: nothing that is still running then is of use to anyone.

OPTIONS are those of `ray.init`, in JSON. Says where Ray listens and where its folder is, or what went wrong, in a line
of JSON.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

PATIENCE_S = 3.0  # a process may be held up in a driver, so that even a kill takes effect later


def main() -> None:
    """Starts Ray, and ends with the search."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    watcher = threading.Thread(target=_end_with_the_search)
    watcher.start()
    answer: dict[str, str] = {}
    try:
        with contextlib.redirect_stdout(sys.stderr):
            import ray

            address = ray.init(address="local", **json.loads(sys.argv[1])).address_info
        answer = {"address": address["address"], "session": address["session_dir"]}
    except Exception as error:  # Ray raises a bare Exception
        answer = {"error": " ".join(str(error).split())}
    print(json.dumps(answer), flush=True)
    watcher.join()  # Ray's processes end with the thread that has started them


def _end_with_the_search() -> None:
    sys.stdin.buffer.read()
    deadline = time.monotonic() + PATIENCE_S
    while (others := _others_of_this_session()) and time.monotonic() < deadline:
        for process in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)
    os._exit(0)


def _others_of_this_session() -> list[int]:
    """Returns the running processes of this one's session; none where there is no /proc: Ray's end by themselves."""
    own, found = os.getpid(), []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):  # it has just ended
            continue
        if int(session) == own and state != "Z" and int(entry.name) != own:
            found.append(int(entry.name))
    return found


if __name__ == "__main__":
    main()
