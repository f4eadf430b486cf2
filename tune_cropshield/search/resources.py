"""Which device the trials run on, and how it is divided among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tune_cropshield.device import num_cores, num_gpus


@dataclass(frozen=True)
class Resources:
    """How a machine is divided among trials.

    cpus and gpus: of the machine; per trial: of one of `concurrent_trials` that run at once. threads: of a trial's CPU
    work.
    """

    device: Literal["cpu", "cuda"]
    cpus: int
    gpus: int
    concurrent_trials: int
    threads: int
    cpus_per_trial: int
    gpus_per_trial: float

    @property
    def trials_per_gpu(self) -> int:
        """How many trials share one GPU; 1 on a CPU."""
        return round(1 / self.gpus_per_trial) if self.gpus_per_trial else 1


def divide(device: Literal["cpu", "cuda"], trials_per_gpu: int | Literal["auto"], num_trials: int) -> Resources:
    """Returns how the machine is divided.

    `trials_per_gpu` counts trials at once on each GPU, or on the CPU when there is none.

    On a CPU, "auto" gives each trial one core: small networks train the most images per second in all that way. On a
    GPU, "auto" is one: with captured graphs, two together train no faster.
    """
    cores = num_cores()
    if device == "cpu":
        concurrent = min(cores if trials_per_gpu == "auto" else trials_per_gpu, num_trials)
        threads = max(cores // concurrent, 1)
        return Resources("cpu", max(cores, concurrent), 0, concurrent, threads, max(cores // concurrent, 1), 0)
    gpus = num_gpus()
    share = 1 if trials_per_gpu == "auto" else trials_per_gpu
    concurrent = min(gpus * share, num_trials)
    threads = max(cores // concurrent, 1)
    return Resources("cuda", max(cores, concurrent), gpus, concurrent, threads, 1, 1 / share)
