"""Measured points, kept between runs: the same step on the same card, driver and PyTorch needs to be measured once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tune_cropshield.config.places import MEASUREMENTS
from tune_cropshield.config.registry import source_digest
from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.device import Card
from tune_cropshield.files import write_text_atomically
from tune_cropshield.memory.measure.points import Point

FORMAT = 6  # of the file, and of what a probe measures: older files are ignored


def identity(trial: TrialConfig, num_classes: int, precision: Precision, card: Card) -> dict[str, Any]:
    """Returns everything that a point depends on beside its micro-batch. Learning rates and the like are not in it.

    precision: the one that `trial` runs in on a GPU.
    """
    return {
        "format": FORMAT,
        "model": trial.model,
        "model_source": source_digest(trial.model),  # of a user's own
        "num_classes": num_classes,
        "image_size": trial.final_size,
        "precision": precision,
        "loss": trial.loss,
        "loss_source": source_digest(trial.loss),
        "optimizer": trial.optimizer,
        "optimizer_source": source_digest(trial.optimizer),
        "has_momentum": trial.optimizer == "sgd" and trial.momentum > 0,
        "channels_last": trial.channels_last,
        "cuda_graphs": trial.cuda_graphs,
        "freeze_backbone": trial.freeze_backbone,
        "average": trial.ema > 0,
        "clips": any(bound != "none" for bound in (trial.max_norm, trial.clip_value, trial.agc)),
        "augment": trial.augment,
        "mixes": [trial.mixup > 0, trial.cutmix > 0],
        "drops": None if trial.dropout is None else trial.dropout > 0,  # None: as the architecture does
        "gpu": card.name,
        "gpu_mib": round(card.total_mib),
        "driver": card.driver,
        "torch": torch.__version__,
    }


class ProbeCache:
    """The points of one identity, in a JSON file under `cache_dir`. A file that cannot be read counts as none."""

    def __init__(self, cache_dir: Path, of: dict[str, Any]) -> None:
        name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
        self.path = cache_dir / MEASUREMENTS / f"{name}.json"
        self._of = of

    def load(self) -> tuple[list[Point], float | None]:
        """Returns the points and the context's MiB (None where not measured)."""
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            if kept["of"] != self._of:
                return [], None
            with suppress(OSError):  # of a cache that must not be written to
                os.utime(self.path)  # `cache clear --older-than` goes by when it was used last
            return [Point(**point) for point in kept["points"]], kept["context_mib"]
        except (OSError, ValueError, KeyError, TypeError):
            return [], None

    def add(self, points: Iterable[Point], context_mib: float | None) -> None:
        """Adds points to the file, in place of older ones at the same micro-batch."""
        known, known_context_mib = self.load()
        merged = {point.micro_batch: point for point in (*known, *points)}
        content = {
            "of": self._of,
            "context_mib": context_mib if context_mib is not None else known_context_mib,
            "points": [asdict(merged[size]) for size in sorted(merged)],
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomically(self.path, json.dumps(content, indent=2) + "\n")

    def lower(self, micro_batch: int, share_mib: float, reason: str) -> None:
        """Notes that a trial ran out of memory at `micro_batch` with `share_mib` to take.

        The micro-batch is not proposed again at that share.
        """
        points, context_mib = self.load()
        too_large = [
            Point(point.micro_batch, share_mib, reason=reason) for point in points if point.micro_batch >= micro_batch
        ]
        self.add([*too_large, Point(micro_batch, share_mib, reason=reason)], context_mib)


def usable(points: Iterable[Point], share_mib: float) -> list[Point]:
    """Returns the points that still say something under a cap of `share_mib`.

    These are fitting ones within it, and failures under a cap no smaller.
    """
    return [
        point
        for point in points
        if (point.cap_mib >= share_mib if point.peak_reserved_mib is None else point.peak_reserved_mib <= share_mib)
    ]
