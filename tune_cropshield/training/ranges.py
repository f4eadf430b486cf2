"""Names for what a step does, which a profiler shows; without one they cost nothing worth measuring."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from torch.autograd import profiler

AUGMENTATION, FORWARD_BACKWARD, OPTIMISER = RANGES = ("augmentation", "forward + backward", "optimiser")


def named(name: str) -> AbstractContextManager[object]:
    """Returns a block that a running profiler shows under `name`."""
    return profiler.record_function(name) if profiler._is_profiler_enabled else nullcontext()
