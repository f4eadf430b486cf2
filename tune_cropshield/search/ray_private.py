"""The parts of Ray that its documentation does not offer, all in one place. Tried on Ray 2.60.

`tests/search/test_private_parts.py` names the one that has moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ray.tune.experiment import Trial

# Ray takes 127.0.0.1 for this machine's address, and so listens on the loopback interface only: otherwise every one of
# its sockets is open to the network. The switch is meant for Windows and macOS, where this is what Ray does anyway.
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}

FAILURE = "Failure # "  # begins each failure in a trial's error file


def error_text(trial: Trial) -> str:
    """Returns what Ray knows of a trial's last failure; "" where it knows nothing.

    It is the worker's traceback where the worker left one.

    `Trial.get_error` reads the same file from a search's storage, where it comes only after the callbacks were called.
    """
    try:
        text = Path(trial.error_file).read_text(encoding="utf-8", errors="replace") if trial.error_file else ""
    except OSError:
        return ""
    return text.rpartition(FAILURE)[2]
