"""A trained network as ONNX: photographs as decoded in, logits and probabilities out, as `predict` gives them.

B: photographs, H, W: their height and width, K: classes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.decode import DecodeError, decode_rgb
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.data.listing import photographs_below
from tune_cropshield.data.preparation import Preparation, judged_on
from tune_cropshield.data.sources import list_photographs
from tune_cropshield.errors import DataError, RunFailure, UserError
from tune_cropshield.files import write_atomically
from tune_cropshield.outcome.onnx_preparation import Prepared
from tune_cropshield.outcome.trained import load_trained, read_run
from tune_cropshield.shell import install_command

ONNX_FILE = "model.onnx"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")  # torch's exporter needs the first two, the check the third
TOLERANCE = 1e-3  # of logits, as a share of the largest one where that is above 1: fp32 can do no better on large ones
NUM_CHECKED = 16  # photographs
SYNTHETIC_SIDE = 200  # px
INPUT = (
    "uint8 RGB (B, H, W, 3), any B, H and W: photographs as decoded, turned upright (EXIF orientation); resized, cut "
    "and normalised inside"
)


class FromPhotographs(nn.Module):
    """The network behind its preparation: uint8 RGB (B, H, W, 3) -> logits and probabilities, both fp32 (B, K)."""

    def __init__(self, model: nn.Module, preparation: Preparation) -> None:
        super().__init__()
        self.model, self.prepared = model, Prepared(preparation)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(self.prepared(images))
        return logits, logits.softmax(dim=1)


def check_packages() -> None:
    """Raises UserError with the install command when a package of the extra is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx needs {' and '.join(missing)}:  {install_command(*PACKAGES)}")


def write_onnx(run_dir: Path, target: Path) -> float:
    """Writes the network of a trained run to `target` and returns the largest difference of a logit from PyTorch's.

    Input `images`: uint8 (B, H, W, 3), photographs as decoded, any B, H and W. Outputs `logits` and `probabilities`:
    fp32 (B, K). The file's metadata name the classes, in the outputs' order, and the preparation. It is compared with
    what `predict` makes of whole photographs of the run's folder, of synthetic ones where that is gone; a file that
    differs by more than TOLERANCE is not kept.

    Raises:
        UserError: when a package is missing or the run is damaged.
        RunFailure: when the network cannot be exported, or the file differs.
    """
    check_packages()
    config, classes, weights = read_run(run_dir)
    preparation = judged_on(config)
    model = load_trained(config.trial, len(classes), weights, torch.device("cpu"))
    metadata = {
        "classes": json.dumps(classes),
        "model": config.trial.model,
        "image_size": str(preparation.image_size),
        "input": INPUT,
        "preparation": json.dumps(preparation.as_dict()),
    }
    content = _exported(FromPhotographs(model, preparation).eval(), metadata, config.trial.model)
    difference = checked_difference(content, photographs_to_check(config.data), model, preparation)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, lambda file: file.write(content))
    return difference


def checked_difference(
    content: bytes, photographs: Sequence[Image.Image], model: nn.Module, preparation: Preparation
) -> float:
    """Returns the largest difference between an ONNX file's logits and those that `predict` goes by.

    It is absolute where logits lie between -1 and 1, and a share of the largest one's size otherwise. Each photograph
    is asked beside its mirror image, every second one turned on its side.

    Args:
        content: the file's bytes.
        model: PyTorch's network, on the CPU.

    Raises:
        RunFailure: when the difference is above TOLERANCE.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    largest, scale = 0.0, 1.0
    for number, upright in enumerate(photographs):
        photograph = upright.transpose(Image.Transpose.ROTATE_90) if number % 2 else upright
        pair = (photograph, photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
        (found_BK,) = session.run(["logits"], {"images": np.stack([np.asarray(one) for one in pair])})
        pictures_BHWC = torch.from_numpy(np.stack([preparation.picture(one) for one in pair]))
        with torch.inference_mode():
            expected_BK = model(preparation.images(pictures_BHWC)).numpy()
        largest = max(largest, float(np.abs(found_BK - expected_BK).max()))
        scale = max(scale, float(np.abs(expected_BK).max()))
    difference = largest / scale
    if not difference <= TOLERANCE:
        raise RunFailure(
            f"the ONNX file was not kept: a logit differs by {difference:.2g} from PyTorch's, more than {TOLERANCE:g}"
        )
    return difference


def _exported(network: FromPhotographs, metadata: dict[str, str], name: str) -> bytes:
    """Returns the file's bytes. Raises RunFailure when torch's exporter cannot translate the network."""
    example = torch.zeros(2, 50, 70, 3, dtype=torch.uint8)  # of three different sizes, none of them 1: all may vary
    network(example)  # the normalisation's tensors are made on first use, and must be real ones
    try:
        with _silence():
            program = torch.onnx.export(
                network,
                (example,),
                dynamo=True,
                input_names=["images"],
                output_names=["logits", "probabilities"],
                dynamic_shapes=({0: "batch", 1: "height", 2: "width"},),
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


def photographs_to_check(config: DataConfig) -> list[Image.Image]:
    """Returns up to 16 whole photographs from all over those of `config`, synthetic ones where none can be read."""
    paths: list[Path] = []
    with contextlib.suppress(DataError):
        if config.given:
            listed = list_photographs(config, for_training=False)
            paths = [listed.root / image.path for image, _, _ in listed.images]
    found = _decoded(paths[:: max(len(paths) // NUM_CHECKED, 1)])
    if found:
        return found
    with TemporaryDirectory() as place:
        leaves = draw_leaves(Path(place) / "leaves", classes=4, per_class=4, image_size=SYNTHETIC_SIDE)
        return _decoded(photographs_below(leaves)[0])


def _decoded(paths: Sequence[Path]) -> list[Image.Image]:
    found = []
    for path in paths[:NUM_CHECKED]:
        with contextlib.suppress(DecodeError):
            found.append(decode_rgb(path))
    return found
