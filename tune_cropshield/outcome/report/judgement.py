"""The winner on the validation split, photograph by photograph."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tune_cropshield.data.dataset import DeviceData, LeafData, open_data
from tune_cropshield.data.windows import IGNORE_INDEX
from tune_cropshield.device import find_device
from tune_cropshield.errors import UserError
from tune_cropshield.outcome.trained import load_trained, read_run
from tune_cropshield.training.evaluate import split_batches
from tune_cropshield.training.precision import DTYPES, autocast, resolve_precision
from tune_cropshield.training.run_folder import BEST_METRICS, PREDICTIONS

if TYPE_CHECKING:
    from torch import Tensor

    from tune_cropshield.config.settings import TrialConfig

THUMBNAIL_PX = 112
MOST_MISTAKES = 12


@dataclass(frozen=True)
class Mistake:
    """A photograph taken for another class. probability: of the class it was taken for; jpeg: a small picture of it."""

    path: str
    truth: str
    taken_for: str
    probability: float
    jpeg: bytes

    @property
    def data_uri(self) -> str:
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


@dataclass(frozen=True)
class Judgement:
    """How the winner does on the validation split.

    confusion: rows are true classes, columns predicted ones. mistakes: the most confident ones, the worst first.
    num_mistakes: of all.
    """

    classes: tuple[str, ...]
    confusion: list[list[int]]
    mistakes: tuple[Mistake, ...]
    num_mistakes: int

    @property
    def accuracy(self) -> float:
        return 1 - self.num_mistakes / sum(map(sum, self.confusion))


def judge(
    run_dir: Path, cache_dir: Path, data: LeafData | None = None, device_name: Literal["auto", "cpu"] = "auto"
) -> Judgement:
    """Returns how the network in `run_dir` does on its validation split.

    What it predicted when it was trained is taken where that is kept and still fits the photographs; else it predicts
    now.

    Args:
        data: the photographs, where they are open already.
        device_name: "cpu" for a network that was trained on one, so that the same pictures are wrong; "auto" takes a
            GPU where there is one.

    Raises:
        UserError: the weights or photographs are gone, or the photographs' classes are no longer those it was trained
            on.
    """
    config, classes, weights = read_run(run_dir)
    import torch

    trial = config.trial
    if data is None:
        data = open_data(config.data, {trial.final_size}, cache_dir)
    if list(data.classes) != classes:
        raise UserError(f"the classes of {config.data.dir} are no longer those it was trained on")
    indices_N = torch.from_numpy(data.split.val)
    kept = _kept_predictions(run_dir, data.store.labels[indices_N])
    predicted_N, probabilities_N = (
        kept if kept is not None else _predictions_now(trial, classes, weights, data, device_name)
    )
    return _judged(predicted_N, probabilities_N, indices_N, data, trial.final_size)


def _kept_predictions(run_dir: Path, labels_N: Tensor) -> tuple[Tensor, Tensor] | None:
    """Returns what was predicted in the best epoch, and how surely.

    None where it was not kept, or is not of these photographs.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        kept = load_file(run_dir / PREDICTIONS)
        accuracy = json.loads((run_dir / BEST_METRICS).read_text(encoding="utf-8"))["val_acc"]
        predicted_N, probability_N = kept["predicted"], kept["probability"]
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    same = len(predicted_N) == len(labels_N) and int((predicted_N == labels_N).sum()) / len(labels_N) == accuracy
    return (predicted_N, probability_N) if same else None


def _predictions_now(
    trial: TrialConfig, classes: Sequence[str], weights: Path, data: LeafData, device_name: Literal["auto", "cpu"]
) -> tuple[Tensor, Tensor]:
    import torch

    device = torch.device(find_device(device_name))
    precision = resolve_precision(trial.precision, device)
    network = load_trained(trial, len(classes), weights, device)
    parts = []
    with torch.inference_mode():
        for batch in split_batches(trial, DeviceData(data, device), "val", DTYPES[precision]):
            with autocast(precision, device):
                logits_BK = network(batch.images())
            parts.append(logits_BK.float().softmax(dim=1).cpu()[batch.labels_B.cpu() != IGNORE_INDEX])
    probability_N, predicted_N = torch.cat(parts).max(dim=1)
    return predicted_N, probability_N


def _judged(
    predicted_N: Tensor, probabilities_N: Tensor, indices_N: Tensor, data: LeafData, image_size: int
) -> Judgement:
    labels_N = data.store.labels[indices_N]
    num_classes = len(data.classes)
    confusion = (
        (labels_N * num_classes + predicted_N)
        .bincount(minlength=num_classes**2)
        .reshape(num_classes, num_classes)
        .tolist()
    )
    wrong = (predicted_N != labels_N).nonzero()[:, 0].tolist()
    worst = sorted(wrong, key=lambda place: -float(probabilities_N[place]))[:MOST_MISTAKES]
    store = data.store_for(image_size)
    mistakes = tuple(
        Mistake(
            path=store.paths[index],
            truth=data.classes[int(labels_N[place])],
            taken_for=data.classes[int(predicted_N[place])],
            probability=float(probabilities_N[place]),
            jpeg=_jpeg(store.images[index]),
        )
        for place, index in ((place, int(indices_N[place])) for place in worst)
    )
    return Judgement(tuple(data.classes), confusion, mistakes, len(wrong))


def _jpeg(image_HWC: Tensor) -> bytes:
    from PIL import Image

    picture = Image.fromarray(image_HWC.numpy())
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return content.getvalue()


def recall_and_precision(confusion: Sequence[Sequence[int]], place: int) -> tuple[float | None, float | None]:
    """Returns both shares for the class at `place`; None where it was never met, or never predicted."""
    right, met, predicted = confusion[place][place], sum(confusion[place]), sum(row[place] for row in confusion)
    return right / met if met else None, right / predicted if predicted else None
