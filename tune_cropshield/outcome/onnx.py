"""A trained network as ONNX: photographs' bytes in, logits and probabilities out.

Nothing is left to guess about the preparation.

B: images, S: side in px, K: classes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from tune_cropshield.data.decode import DecodeError
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.data.preparation import Preparation
from tune_cropshield.errors import RunFailure, UserError
from tune_cropshield.files import write_atomically
from tune_cropshield.outcome.trained import load_trained, read_run

ONNX_FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # torch's exporter needs the first two, the check the third
TOLERANCE = 1e-3  # of logits, as a share of the largest one where that is above 1: fp32 can do no better on large ones
NUM_CHECKED = 16  # photographs
PREPARATION = (
    "uint8 RGB (B, S, S, 3): each photograph upright, its shorter side resized to S px (bilinear, antialiased), its "
    "centre square cut out; cropped and normalised inside"
)


class FromBytes(nn.Module):
    """The network behind its preparation: uint8 RGB (B, S, S, 3) -> logits and probabilities, both fp32 (B, K)."""

    def __init__(self, model: nn.Module, image_size: int) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(Preparation(self.image_size).images(images))
        return logits, logits.softmax(dim=1)


def check_packages() -> None:
    """Raises UserError with the install command when a package of the extra is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--format onnx needs {' and '.join(missing)}: python -m pip install {' '.join(PACKAGES)} (uv run "
            "--extra onnx ... with uv)"
        )


def write_onnx(run_dir: Path, target: Path) -> float:
    """Writes the network of a trained run to `target` and returns the largest difference of a logit from PyTorch's.

    Input `images`: uint8 (B, S, S, 3), any B. Outputs `logits` and `probabilities`: fp32 (B, K). The file's metadata
    name the classes, in the outputs' order. Both networks are compared on photographs of the run's folder, on
    synthetic ones where that is gone; a file that differs by more than TOLERANCE is not kept.

    Raises:
        UserError: when a package is missing or the run is damaged.
        RunFailure: when the network cannot be exported, or the file differs.
    """
    check_packages()
    config, classes, weights = read_run(run_dir)
    trial, size = config.trial, config.trial.final_size
    network = FromBytes(load_trained(trial, len(classes), weights, torch.device("cpu")), size).eval()
    pictures = pictures_to_check(config.data.dir, size)
    metadata = {"classes": json.dumps(classes), "model": trial.model, "image_size": str(size), "input": PREPARATION}
    content = _exported(network, torch.from_numpy(pictures[:2]), metadata, trial.model)
    with torch.inference_mode():
        expected, _ = network(torch.from_numpy(pictures))
    difference = checked_difference(content, pictures, expected.numpy(), trial.model)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: file.write(content))
    return difference


def checked_difference(content: bytes, pictures_BSSC: np.ndarray, expected_BK: np.ndarray, name: str) -> float:
    """Returns the largest difference between PyTorch's logits and an ONNX file's, asked one by one and as a batch.

    It is absolute where logits lie between -1 and 1, and a share of the largest one's size otherwise.

    Args:
        content: the file's bytes.
        expected_BK: PyTorch's logits for `pictures_BSSC`.
        name: of the network, for the error's text.

    Raises:
        RunFailure: when the difference is above TOLERANCE.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    together = session.run(["logits"], {"images": pictures_BSSC})[0]
    alone = np.concatenate(
        [session.run(["logits"], {"images": pictures_BSSC[at : at + 1]})[0] for at in range(len(pictures_BSSC))]
    )
    largest = max(np.abs(together - expected_BK).max(), np.abs(alone - expected_BK).max())
    difference = float(largest / max(np.abs(expected_BK).max(), 1.0))
    if not difference <= TOLERANCE:
        raise RunFailure(
            f"the ONNX file of {name} was not kept: a logit differs by {difference:.2g} from PyTorch's, more than "
            f"{TOLERANCE:g}"
        )
    return difference


def _exported(network: FromBytes, example: Tensor, metadata: dict[str, str], name: str) -> bytes:
    """Returns the file's bytes. Raises RunFailure when torch's exporter cannot translate the network."""
    network(example)  # the normalisation's tensors are made on first use, and must be real ones
    try:
        with _silence():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits", "probabilities"],
                dynamic_shapes=({0: "batch"},),
            )
            assert program is not None
            proto = program.model_proto
    except Exception as error:  # the exporter's own errors come in many kinds
        raise RunFailure(
            f"{name} cannot be exported to ONNX: {' '.join(str(error).split())[:300] or type(error).__name__}"
        ) from error
    for key, value in metadata.items():
        proto.metadata_props.add(key=key, value=value)
    return bytes(proto.SerializeToString())


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Inside: the exporter, which talks on every channel, says nothing."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def pictures_to_check(folder: str, size: int) -> np.ndarray:
    """Returns 16 photographs from all over `folder` as the store keeps them, uint8.

    They are synthetic ones where none can be read.
    """
    preparation = Preparation(size)
    photographs = photographs_below(Path(folder))[0] if folder and Path(folder).is_dir() else []
    found = _decoded(photographs[:: max(len(photographs) // NUM_CHECKED, 1)], preparation)
    if found:
        return np.stack(list(islice(cycle(found), NUM_CHECKED)))
    with TemporaryDirectory() as place:
        leaves = draw_leaves(Path(place) / "leaves", classes=4, per_class=4, image_size=max(size, 64))
        return np.stack(_decoded(photographs_below(leaves)[0], preparation))


def _decoded(paths: Sequence[Path], preparation: Preparation) -> list[np.ndarray]:
    found = []
    for path in paths:
        with contextlib.suppress(DecodeError):
            found.append(preparation.picture_of(path))
    return found[:NUM_CHECKED]
