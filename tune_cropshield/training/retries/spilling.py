"""What happens when the driver moves our memory out of the GPU: the trial goes on with half the micro-batch.

Windows' driver does not refuse what exceeds the GPU's memory. It moves it to system memory, and training crawls.
Since driver 536.40 (Windows, and WSL): https://nvidia.custhelp.com/app/answers/detail/a_id/5490. The cap on the
allocator keeps our own memory within the GPU's; what other programs take later is not ours to cap.
"""

from __future__ import annotations

import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tune_cropshield.config.units import MIB
from tune_cropshield.training.metrics import EpochMetrics
from tune_cropshield.training.retries.out_of_memory import OutOfMemoryPolicy
from tune_cropshield.training.trainer import Trainer

SPILLED = "training slowed down by half with the memory nearly full: the driver seems to use system memory"
# Times the usual time per image; a spilled step takes 5 to 50 times (measured by users), a busy desktop rarely 1.5.
SLOWDOWN = 1.5
NEARLY_ALL = 0.9  # of the budget: below, our memory is not what spills
LITTLE_FREE_MIB = 128.0  # with less left on the GPU, the next allocation of any program spills


@dataclass(frozen=True)
class EpochMemory:
    """An epoch as `SpillPolicy` sees it; the time is that of training alone, without waiting for images."""

    seconds_per_image: float
    reserved_mib: float  # highest of the epoch
    free_mib: float  # on the GPU at its end


def driver_may_spill() -> bool:
    """Tells whether this system's driver moves GPU memory to system memory rather than refuse it.

    Windows does, and Linux inside it.
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
        and now.seconds_per_image > SLOWDOWN * statistics.median(epoch.seconds_per_image for epoch in earlier)
    )


class SpillPolicy:
    """Watches the epochs since the last change and halves the micro-batch after one that spilled.

    Args:
        budget_mib: the allocator's cap; None without one.
        device: the GPU.
    """

    def __init__(self, budget_mib: float | None, device: torch.device) -> None:
        self._budget_mib, self._device = budget_mib, device
        self._watching = device.type == "cuda" and driver_may_spill()
        self._earlier: list[EpochMemory] = []
        self._setting: tuple[int, ...] | None = None

    def epoch_ended(
        self, trainer: Trainer, batches: OutOfMemoryPolicy, metrics: EpochMetrics, image_size: int, train_images: int
    ) -> None:
        """Halves the micro-batch where the epoch of `metrics` spilled, unless it is as small as it may be."""
        if not self._watching:
            return
        epoch = EpochMemory(
            seconds_per_image=1 / metrics.images_per_s - metrics.data_wait_s / train_images,
            reserved_mib=metrics.peak_vram_mib,
            free_mib=torch.cuda.mem_get_info(self._device)[0] / MIB,
        )
        whole = trainer.step.frozen is None
        if self.spilled((batches.micro_batch, image_size, whole), epoch) and batches.can_halve:
            batches.halve_micro_batch(trainer, metrics.epoch, SPILLED)

    def spilled(self, setting: tuple[int, ...], epoch: EpochMemory) -> bool:
        """Takes in an epoch and tells whether it spilled.

        setting: what the usual time of an epoch depends on: micro-batch, image size, whether the whole network trains.
        """
        if setting != self._setting:
            self._setting, self._earlier = setting, []
        spilled = has_spilled(self._earlier, epoch, self._budget_mib)
        if not spilled:
            self._earlier.append(epoch)
        return spilled
