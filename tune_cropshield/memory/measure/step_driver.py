"""The real training step at one micro-batch, measured: what a trial of these settings will reserve, and how fast it
is.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from contextlib import closing

import torch

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.config.units import MIB
from tune_cropshield.data.dataset import store_side
from tune_cropshield.data.feed import ImageFeed
from tune_cropshield.data.mixing import Mixing
from tune_cropshield.data.windows import WindowSettings, evaluation_batches, training_windows
from tune_cropshield.memory.measure.points import Point
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.gpu_errors import first_line, is_out_of_memory
from tune_cropshield.training.precision import DTYPES

MICRO_STEPS = 2  # the second one meets the gradients of the first: more would find nothing new
WARM_UP_WINDOWS = 3  # kernels are loaded and chosen, the optimizer's state is made, the allocator has its segments
TIMED_WINDOWS = 8
PICTURES = 16  # of random pixels; every micro-batch is gathered from these


def measure(
    trial: TrialConfig,
    num_classes: int,
    micro_batch: int,
    device: torch.device,
    cap_mib: float,
    warm_up: int = WARM_UP_WINDOWS,
    timed: int = TIMED_WINDOWS,
) -> Point:
    """Returns the point of `trial`, whatever its own pair, at `micro_batch`.

    Windows of two micro-steps (augmented and mixed as in a trial), unscaling, clipping, the optimizer; an evaluation
    batch; without CUDA graphs also a ragged last window, whose other sizes fragment memory (graphs share theirs).
    images/s is the median over the `timed` windows that follow `warm_up` others. cap_mib: the cap in force, for the
    record. A step that runs out of memory, or only keeps within it by giving cached memory back all the time, does not
    fit. On a CPU the memory figures are 0.
    """
    reason = ""
    try:
        return _measure(trial, num_classes, micro_batch, device, cap_mib, warm_up, timed)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reason = first_line(error)
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return Point(micro_batch, cap_mib, reason=reason)


def _measure(
    trial: TrialConfig,
    num_classes: int,
    micro_batch: int,
    device: torch.device,
    cap_mib: float,
    warm_up: int,
    timed: int,
) -> Point:
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.init()  # else a process that has not used the GPU yet has no figures to reset
        torch.cuda.reset_peak_memory_stats(device)
    retries_before = _retries(device)
    effective_batch = MICRO_STEPS * micro_batch
    size = trial.final_size
    ragged = (
        0 if cuda and trial.cuda_graphs else micro_batch + 2 * math.ceil(micro_batch / 6)
    )  # one whole and a third; even where that is
    indices = torch.arange((warm_up + timed) * effective_batch + ragged) % PICTURES
    side = store_side(size)
    feed = ImageFeed(torch.randint(256, (PICTURES, side, side, 3), dtype=torch.uint8), device, resident=cuda)
    labels_N = torch.randint(num_classes, (PICTURES,)).to(device)
    settings = {
        "effective_batch": effective_batch,
        "micro_batch": micro_batch,
        "accumulation": MICRO_STEPS,
        "pretrained": False,
        "epochs": 1,
    }
    trainer = build_trainer(trial.model_copy(update=settings), num_classes, labels_N.cpu()[indices], device)
    step, dtype = trainer.step, DTYPES[trainer.step.precision]
    mixing = Mixing(trial.mixup, trial.cutmix) if trial.mixup or trial.cutmix else None
    cut = WindowSettings(effective_batch, micro_batch, trial.augment, mixing, trial.seed, dtype)

    seconds = []
    # Twice: what is new to the process runs as it is before it is captured, and both take memory.
    for part in (indices, indices[-ragged - effective_batch :]):
        step.model.train()
        step.log.start()
        with closing(training_windows(feed, labels_N, part, cut, 0, size)) as windows:
            started = _now(device)
            for window in windows:
                step.remember()
                step.train_window(window)
                ended = _now(device)
                seconds.append(ended - started)
                started = ended
        trainer.evaluator.evaluate(evaluation_batches(feed, labels_N, indices[:micro_batch], micro_batch, size, dtype))
    if _retries(device) > retries_before:
        return Point(micro_batch, cap_mib, reason="the allocator had to give cached memory back to go on")
    allocated, reserved = (
        (torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)) if cuda else (0, 0)
    )
    speed = effective_batch / statistics.median(seconds[warm_up : warm_up + timed])
    return Point(micro_batch, cap_mib, allocated / MIB, reserved / MIB, speed)


def _retries(device: torch.device) -> int:
    return int(torch.cuda.memory_stats(device)["num_alloc_retries"]) if device.type == "cuda" else 0


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
