"""The real training loop for some seconds, in one of several processes that share a device: how fast they are together."""

from __future__ import annotations

import gc
import time
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch

from tune_cropshield.config import TrialConfig
from tune_cropshield.data.dataset import store_side
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.mixing import Mixing
from tune_cropshield.data.windows import Window, WindowSettings, training_windows
from tune_cropshield.memory.budget import cap_allocator
from tune_cropshield.memory.ladder import Ladder
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.precision import DTYPES

WARM_UP_WINDOWS = 5
MOST_WINDOWS = 2000
PICTURES = 64  # of random pixels; every window is gathered from these


@dataclass(frozen=True)
class Share:
    """What one of the processes is to run: `trial` with its pair, its allocator held to `share_mib` (None: no cap), on `device`."""

    trial: TrialConfig
    num_classes: int
    share_mib: float | None
    device: str = "cuda:0"


def serve(connection: Connection) -> None:
    """Runs in each process, until the connection closes. Answers a Share with "ready" once it is warm, then a number of seconds with what it trained
    in them: a list of (moment on the system's monotonic clock, images since the moment before), or None when memory ran out."""
    while True:
        try:
            _train_share(connection, connection.recv())
        except EOFError:
            return
        except torch.OutOfMemoryError:
            connection.send(None)
        gc.collect()
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def _train_share(connection: Connection, share: Share) -> None:
    run = _Run(share)
    run.train(float("inf"), WARM_UP_WINDOWS)
    connection.send("ready")
    connection.send(run.train(connection.recv(), MOST_WINDOWS))


class _Run:
    """A trainer on random pictures, driven as a trial drives it."""

    def __init__(self, share: Share) -> None:
        trial, self.device = share.trial, torch.device(share.device)
        if trial.threads is not None:
            torch.set_num_threads(trial.threads)
        cap_allocator(share.share_mib, self.device)
        side = store_side(trial.final_size)
        self.feed = ImageFeed(torch.randint(256, (PICTURES, side, side, 3), dtype=torch.uint8), self.device, resident=self.device.type == "cuda")
        self.labels_N = torch.randint(share.num_classes, (PICTURES,)).to(self.device)
        self.indices = torch.arange(MOST_WINDOWS * trial.effective_batch) % PICTURES
        trainer = build_trainer(trial, share.num_classes, self.labels_N.cpu()[self.indices], self.device)
        mixing = Mixing(trial.mixup, trial.cutmix) if trial.mixup or trial.cutmix else None
        micro_batch, _ = trial.pair
        self.cut = WindowSettings(trial.effective_batch, micro_batch, trial.augment, mixing, trial.seed, DTYPES[trainer.step.precision])
        self.trial, self.ladder = trial, Ladder(trainer, trial.effective_batch, micro_batch, micro_batch, even=mixing is not None)

    def train(self, seconds: float, most_windows: int) -> list[tuple[float, int]]:
        """Trains for `seconds`, at most so many windows, and returns (moment, images trained since the one before) of each."""
        moments = [(self._now(), 0)]

        def windows_from(micro_batch: int, first_window: int) -> Generator[Window]:
            windows = training_windows(self.feed, self.labels_N, self.indices, self.cut, 0, self.trial.final_size, first_window)
            for window in windows:
                yield window
                moments.append((self._now(), window.num_samples))
                if len(moments) > most_windows or moments[-1][0] - moments[0][0] >= seconds:
                    windows.close()

        self.ladder.train_epoch(windows_from, 1)
        return moments

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()
