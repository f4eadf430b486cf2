"""Windows' driver does not refuse what exceeds the card's memory: it moves it to system memory, and training crawls.
This notices.

Since driver 536.40 (Windows, and WSL): https://nvidia.custhelp.com/app/answers/detail/a_id/5490. The cap on the
allocator keeps our own memory within the card; what other programs take later is not ours to cap.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# times the usual time per image; a spilled step takes 5 to 50 times (measured by users), a busy desktop rarely 1.5
CLIFF = 1.5
NEARLY_ALL = 0.9  # of the budget: below, our memory is not what spills
LITTLE_FREE_MIB = 128.0  # with less left on the card, the next allocation of any program spills


@dataclass(frozen=True)
class EpochMemory:
    """An epoch as the guard sees it; the time is that of training alone, without waiting for images."""

    seconds_per_image: float
    reserved_mib: float  # highest of the epoch
    free_mib: float  # on the card at its end


def driver_may_spill() -> bool:
    """Tells whether this system's driver moves GPU memory to system memory rather than refuse it: Windows, and Linux
    inside it.
    """
    return platform.system() == "Windows" or "microsoft" in platform.release().lower()


def has_spilled(earlier: Sequence[EpochMemory], now: EpochMemory, budget_mib: float | None) -> bool:
    """Tells whether this epoch fell off a cliff in speed for want of memory.

    earlier: epochs at the same micro-batch and image size; without any, there is no usual time to fall from.
    budget_mib: the allocator's cap.
    """
    near = now.free_mib < LITTLE_FREE_MIB or (budget_mib is not None and now.reserved_mib >= NEARLY_ALL * budget_mib)
    return (
        bool(earlier)
        and near
        and now.seconds_per_image > CLIFF * statistics.median(epoch.seconds_per_image for epoch in earlier)
    )


class SpillGuard:
    """Keeps the epochs since the last change and says when memory has spilled. budget_mib: the allocator's cap, None
    without one.
    """

    def __init__(self, budget_mib: float | None) -> None:
        self._budget_mib = budget_mib
        self._earlier: list[EpochMemory] = []
        self._setting: tuple[int, int] | None = None

    def spilled(self, setting: tuple[int, int], epoch: EpochMemory) -> bool:
        """Takes in an epoch trained at `setting` (micro-batch, image size) and tells whether it spilled."""
        if setting != self._setting:
            self._setting, self._earlier = setting, []
        spilled = has_spilled(self._earlier, epoch, self._budget_mib)
        if not spilled:
            self._earlier.append(epoch)
        return spilled
