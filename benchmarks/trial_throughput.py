"""Images per second of a trial's training epoch against bare steps of the same network on random tensors that are
already on the device.

    python benchmarks/trial_throughput.py --model tiny_cnn --image-size 64 --micro-batch 32 [--data DIR] [--threads 1]

The trial's side is everything an epoch does: gathering pictures, augmentation, exact loss, clipping, metrics. The bare
side is forward, backward and a fused step. Both alternate in one process; one JSON line per round, then the medians and
their ratio.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
import time
from pathlib import Path

import torch
from environment import environment
from torch import nn

from tune_cropshield.config.settings import DataConfig, Precision, TrialConfig
from tune_cropshield.data.dataset import DeviceData, open_data
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.windows import WindowSettings, training_windows
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.models import build_model
from tune_cropshield.training.precision import DTYPES, autocast, gradient_scaler, resolve_precision


class BareLoop:
    """Forward, backward and a fused step on random tensors: what nothing that trains can beat."""

    def __init__(
        self,
        model: str,
        num_classes: int,
        image_size: int,
        micro_batch: int,
        precision: Precision,
        device: torch.device,
    ) -> None:
        self.model = build_model(model, num_classes).to(device).to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.scaler = gradient_scaler(precision, device)
        images = torch.randn(micro_batch, 3, image_size, image_size, device=device, dtype=DTYPES[precision])
        self.images = images.to(memory_format=torch.channels_last)
        self.labels = torch.randint(num_classes, (micro_batch,), device=device)
        self.precision, self.device = precision, device

    def images_per_s(self, steps: int) -> float:
        """Trains `steps` steps and returns the images per second."""
        synchronize(self.device)
        started = time.perf_counter()
        for _ in range(steps):
            with autocast(self.precision, self.device):
                logits = self.model(self.images)
            loss = nn.functional.cross_entropy(logits.float(), self.labels)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        synchronize(self.device)
        return steps * len(self.images) / (time.perf_counter() - started)


WARM_UP_ROUNDS = 2  # on a GPU, every shape runs once as it is and is then captured


def synchronize(device: torch.device) -> None:
    """Waits for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny_cnn")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--micro-batch", type=int, default=32)
    parser.add_argument("--augment", default="moderate")
    parser.add_argument("--data", type=Path, help="photographs; left out, synthetic leaves")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; a search on a CPU gives each trial one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-images", type=int, default=10**9, help="train on no more than this many images an epoch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = resolve_precision("auto", device)
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.data or draw_leaves(Path(folder) / "leaves", classes=6, per_class=160, image_size=96)
        data = DeviceData(
            open_data(DataConfig(dir=str(root)), {arguments.image_size}, Path(folder) / "cache"),
            device,
            resident_bytes=2**33,
        )
        num_classes = len(data.data.classes)
        indices = data.indices("train")[: arguments.max_images]
        trial = TrialConfig(
            model=arguments.model,
            image_size=arguments.image_size,
            effective_batch=arguments.micro_batch,
            max_norm=1.0,
            augment=arguments.augment,
        )
        trainer = build_trainer(trial, num_classes, data.labels_N[indices].cpu(), device)
        settings = WindowSettings(
            arguments.micro_batch, arguments.micro_batch, arguments.augment, None, 0, DTYPES[precision]
        )
        bare = BareLoop(arguments.model, num_classes, arguments.image_size, arguments.micro_batch, precision, device)
        steps = math.ceil(len(indices) / arguments.micro_batch)
        bare.images_per_s(3)
        trials, bares = [], []
        for round_number in range(WARM_UP_ROUNDS + arguments.rounds):
            windows = training_windows(
                data.feed(arguments.image_size), data.labels_N, indices, settings, round_number, arguments.image_size
            )
            trained = trainer.train_epoch(windows, round_number + 1)
            bare_rate = bare.images_per_s(steps)
            if round_number < WARM_UP_ROUNDS:
                continue
            trials.append(trained.images / trained.seconds)
            bares.append(bare_rate)
            print(
                json.dumps(
                    {
                        "round": round_number,
                        "trial_images_per_s": round(trials[-1], 1),
                        "bare_images_per_s": round(bare_rate, 1),
                    }
                )
            )
    result = {
        "benchmark": "trial_throughput",
        "model": arguments.model,
        "image_size": arguments.image_size,
        "micro_batch": arguments.micro_batch,
        "augment": arguments.augment,
        "precision": precision,
        "threads": arguments.threads,
        "trial_images_per_s": round(statistics.median(trials), 1),
        "bare_images_per_s": round(statistics.median(bares), 1),
        "ratio": round(statistics.median(trial / bare for trial, bare in zip(trials, bares, strict=True)), 3),
        **environment(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
