"""`predict`: photographs -> classes and probabilities."""

from __future__ import annotations

import argparse
from pathlib import Path

from tune_cropshield.errors import UserError
from tune_cropshield.search.resources import find_device

BATCH = 32


def run(args: argparse.Namespace) -> int:
    """Prints a line per photograph: path, class, probability. Raises UserError at the end when some, which are named, were unreadable."""
    from tune_cropshield.outcome.trained import load_trained, read_run

    config, classes, weights = read_run(args.run_dir)
    images = list(_photographs(args.images))
    import numpy as np
    import torch

    from tune_cropshield.data.augment import evaluation_view
    from tune_cropshield.data.dataset import store_side
    from tune_cropshield.data.decode import DecodeError, decode_rgb

    device = torch.device(find_device("auto"))
    trial = config.trial
    model = load_trained(trial, len(classes), weights, device)
    unreadable = 0
    for start in range(0, len(images), BATCH):
        pictures, paths = [], []
        for path in images[start : start + BATCH]:
            try:
                pictures.append(decode_rgb(path, store_side(trial.final_size)))
                paths.append(path)
            except DecodeError as error:
                unreadable += 1
                print(f"{path}\tunreadable\t{error}")
        if not pictures:
            continue
        batch = evaluation_view(torch.from_numpy(np.stack(pictures)).to(device), trial.final_size)
        with torch.inference_mode():
            shares, best = model(batch).float().softmax(dim=1).max(dim=1)
        for path, share, index in zip(paths, shares.tolist(), best.tolist(), strict=True):
            print(f"{path}\t{classes[index]}\t{share:.4f}")
    if unreadable:
        raise UserError(f"{unreadable} of {len(images)} photographs cannot be read")
    return 0


def _photographs(given: list[Path]) -> list[Path]:
    """Returns the photographs named, and those inside the folders named; raises UserError for what is not there."""
    from tune_cropshield.data.folder import IMAGE_SUFFIXES, is_image_name

    found: list[Path] = []
    for path in given:
        if path.is_dir():
            found += sorted(file for file in path.rglob("*") if file.is_file() and is_image_name(file.name))
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such photograph or folder")
    if not found:
        raise UserError(f"no photographs ({' '.join(IMAGE_SUFFIXES)}) in {', '.join(str(path) for path in given)}")
    return found
