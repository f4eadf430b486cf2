"""`predict`: photographs -> classes and probabilities."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tune_cropshield.api.arguments import AnyPath, path_of
from tune_cropshield.api.names import run_named
from tune_cropshield.device import find_device
from tune_cropshield.errors import UserError
from tune_cropshield.files import printable

if TYPE_CHECKING:  # PyTorch takes seconds to import: a wrong folder is told about before
    from tune_cropshield.outcome.predict import Prediction


def predict(run_dir: AnyPath, images: AnyPath | Sequence[AnyPath]) -> list[Prediction]:
    """Returns a prediction for each photograph: its path, and every class's probability, the most likely first.

    Args:
        run_dir: A folder with config.toml, classes.json and model.safetensors: OUT/best, OUT/t000 or `train`'s; of a
            search's folder, its best/. In results/runs, the name is enough.
        images: Photographs, or folders of them; a photograph named twice counts once. One that cannot be read has no
            probabilities, and `fault` says why.

    Raises:
        UserError: `run_dir` is no trained run or damaged, or something in `images` is not there.
    """
    return list(predictions(run_dir, images))


def predictions(
    run_dir: AnyPath, images: AnyPath | Sequence[AnyPath], tell: Callable[[str], object] = lambda line: None
) -> Iterator[Prediction]:
    """Yields what `predict` returns, each as soon as it is known; everything wrong is raised before the first.

    tell: called with a line on each kind of thing that lies in a folder and is not predicted, and on a run of an
        earlier version.
    """
    from tune_cropshield.outcome.trained import earlier_preparation, read_run

    run_dir = run_named(run_dir)
    read_run(run_dir)  # a wrong folder is told about before seconds of imports
    for line in earlier_preparation(run_dir):
        tell(line)
    given = images if isinstance(images, Iterable) and not isinstance(images, str) else [images]
    photographs = photographs_of([path_of(image, "IMAGE") for image in given], tell)
    import torch

    from tune_cropshield.outcome import predict as outcome

    return outcome.predict(run_dir, photographs, torch.device(find_device("auto")))


def photographs_of(given: list[Path], tell: Callable[[str], object]) -> list[Path]:
    """Returns the photographs named, and those inside the folders named, each once, in whichever way it was named.

    Raises UserError for what is not there.
    """
    from tune_cropshield.data.left_out import left_out_lines
    from tune_cropshield.data.listing import photographs_below

    missing = [path for path in given if not path.exists()]
    if missing:
        raise UserError("\n".join(f"{printable(path)}: no such photograph or folder" for path in missing))
    devices = [path for path in given if not path.is_dir() and not path.is_file()]
    if devices:  # reading a pipe may never end
        raise UserError("\n".join(f"{printable(path)}: neither a file nor a folder" for path in devices))
    found: dict[str, Path] = {}  # where it really lies -> as it was named first; in their order
    try:
        for path in given:
            photographs, left_out = photographs_below(path) if path.is_dir() else ([path], [])
            for photograph in photographs:
                found.setdefault(os.path.join(os.path.realpath(photograph.parent), photograph.name), photograph)
            for line in left_out_lines(left_out):
                tell(f"{printable(path)}: {line}")
    except PermissionError as error:
        raise UserError(f"no permission to read {printable(error.filename)}") from None
    if not given:
        raise UserError("IMAGE: no photograph or folder was given")
    if not found:
        raise UserError(f"no photographs in {', '.join(map(printable, given))}")
    return list(found.values())
