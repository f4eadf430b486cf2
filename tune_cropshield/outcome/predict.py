"""Photographs -> classes and probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from tune_cropshield.data.decode import DecodeError
from tune_cropshield.data.preparation import judged_on
from tune_cropshield.outcome.trained import load_trained, read_run

BATCH = 32


@dataclass(frozen=True)
class Prediction:
    """One photograph's outcome.

    probabilities: {class: share}, the most likely first; empty where `fault` says why it cannot be read.
    """

    path: Path
    probabilities: dict[str, float]
    fault: str | None = None


def predict(run_dir: Path, paths: Sequence[Path], device: torch.device) -> Iterator[Prediction]:
    """Yields the prediction for each of `paths`, in their order, by the network of a trained run.

    Raises UserError when the run is damaged.
    """
    config, classes, weights = read_run(run_dir)
    preparation = judged_on(config)
    model = load_trained(config.trial, len(classes), weights, device)
    waiting = iter(paths)
    while batch := list(islice(waiting, BATCH)):
        pictures, faults = {}, {}
        for path in batch:
            try:
                pictures[path] = preparation.picture_of(path)
            except DecodeError as error:
                faults[path] = str(error)
        shares: dict[Path, list[float]] = {}
        if pictures:
            stacked_BHWC = torch.from_numpy(np.stack(list(pictures.values()))).to(device)
            images_BCHW = preparation.images(stacked_BHWC)
            with torch.inference_mode():
                shares = dict(zip(pictures, model(images_BCHW).float().softmax(dim=1).tolist(), strict=True))
        for path in batch:
            found = sorted(zip(classes, shares.get(path, []), strict=False), key=lambda item: -item[1])
            yield Prediction(path, dict(found), faults.get(path))
