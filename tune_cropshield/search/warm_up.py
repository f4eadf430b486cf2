"""What a Ray worker does before its first trial is there: it loads what every trial needs."""

from __future__ import annotations

import importlib

# Loaded by a trial's first epoch only, and slow.
LATER = ("tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.event_file_writer", "safetensors.torch")


def load_what_trials_need(other_modules: tuple[str, ...] = ()) -> None:
    """Imports PyTorch, Ray Tune and our own modules into this process; a GPU is left alone, since Ray has not yet said which one."""
    for name in ("tune_cropshield.search.worker", *LATER, *other_modules):
        importlib.import_module(name)
