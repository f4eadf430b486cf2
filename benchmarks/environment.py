"""What a figure was measured with and on: goes into every line of a benchmark's output."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path


def environment() -> dict[str, object]:
    """Returns the device, its versions, the number of cores and the commit (with "+" for uncommitted changes)."""
    import torch  # seconds, and a table made of figures has no use for it

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "device": gpu or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if gpu else None,
        "commit": commit(),
    }


def commit() -> str:
    """Returns the checkout's commit, "unknown" outside one."""
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty=+"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
