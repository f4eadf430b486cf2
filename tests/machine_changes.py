"""Whether tests may install packages on this machine and mount disks: only where the environment says so."""

from __future__ import annotations

import os

import pytest

VARIABLE = "TUNE_CROPSHIELD_TESTS_MAY_CHANGE_MACHINE"


def skip_unless_allowed(change: str) -> None:
    """Skips the test unless the environment allows changes to the machine. change: what the test would do."""
    if os.environ.get(VARIABLE) != "1":
        pytest.skip(f"this test would {change}: {VARIABLE}=1 allows it")
