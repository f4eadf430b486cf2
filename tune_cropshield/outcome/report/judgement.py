"""The winner on the validation split, photograph by photograph."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tune_cropshield.data.dataset import DeviceData, LeafData
from tune_cropshield.data.split_file import find_split
from tune_cropshield.device import find_device
from tune_cropshield.errors import UserError
from tune_cropshield.outcome.trained import load_trained, read_run
from tune_cropshield.training.evaluate import Evaluator, split_batches
from tune_cropshield.training.precision import DTYPES, resolve_precision
from tune_cropshield.training.predictions import PREDICTIONS, Judged, judged, read_judged
from tune_cropshield.training.run_folder import BEST_METRICS

if TYPE_CHECKING:
    from torch import Tensor

    from tune_cropshield.config.settings import RunConfig

EARLIER_PREDICTIONS = "predictions.safetensors"  # what earlier versions kept: numbers in the order of the split
THUMBNAIL_PX = 112
MOST_MISTAKES = 12


@dataclass(frozen=True)
class Mistake:
    """A photograph taken for another class. jpeg: a small picture of it, None where the photograph is gone."""

    row: Judged
    jpeg: bytes | None

    @property
    def data_uri(self) -> str | None:
        return data_uri(self.jpeg) if self.jpeg is not None else None


@dataclass(frozen=True)
class Judgement:
    """How the winner does on the validation split. mistakes: the most confident ones, the worst first."""

    classes: tuple[str, ...]
    rows: tuple[Judged, ...]
    mistakes: tuple[Mistake, ...]

    @property
    def confusion(self) -> list[list[int]]:
        """Rows are true classes, columns predicted ones."""
        place = {name: number for number, name in enumerate(self.classes)}
        counts = [[0] * len(place) for _ in place]
        for row in self.rows:
            counts[place[row.true_class]][place[row.predicted]] += 1
        return counts

    @property
    def num_mistakes(self) -> int:
        return sum(not row.right for row in self.rows)

    @property
    def accuracy(self) -> float:
        return (len(self.rows) - self.num_mistakes) / len(self.rows)

    @property
    def never_recognised(self) -> list[str]:
        """The classes of which no photograph was recognised: recall 0."""
        return [
            name for name, row in zip(self.classes, self.confusion, strict=True) if sum(row) and not self._right(name)
        ]

    @property
    def never_predicted(self) -> list[str]:
        """The classes that no photograph was taken for, rightly or wrongly."""
        predicted = {row.predicted for row in self.rows}
        return [name for name in self.classes if name not in predicted]

    def _right(self, name: str) -> int:
        return sum(row.right for row in self.rows if row.true_class == name)


def judge(run_dir: Path, data: LeafData | None, device_name: Literal["auto", "cpu"] = "auto") -> Judgement:
    """Returns how the network in `run_dir` does on its validation split.

    What it predicted in its best epoch is taken where that is kept; else it predicts now.

    Args:
        data: the photographs; None where they are gone: then there are no pictures.
        device_name: "cpu" for a network that was trained on one, so that the same pictures are wrong; "auto" takes a
            GPU where there is one.

    Raises:
        UserError: the weights are gone, or neither the photographs nor the predictions are there, or the photographs'
            classes are no longer those it was trained on.
    """
    config, classes, weights = read_run(run_dir)
    rows = kept_predictions(run_dir, data)
    if rows is None:
        if data is None:
            raise UserError("neither its predictions nor the photographs are there")
        if list(data.classes) != classes:
            raise UserError(f"the classes of {config.data.place} are no longer those it was trained on")
        rows = _predictions_now(config, classes, weights, data, device_name)
    wrong = sorted((row for row in rows if not row.right), key=lambda row: -row.probability)[:MOST_MISTAKES]
    pictures = _pictures(run_dir, [row.photograph for row in wrong], data, config.trial.final_size)
    mistakes = tuple(Mistake(row, pictures.get(row.photograph)) for row in wrong)
    return Judgement(tuple(classes), tuple(rows), mistakes)


def kept_predictions(run_dir: Path, data: LeafData | None) -> list[Judged] | None:
    """Returns what the network in `run_dir` said of its validation photographs in its best epoch.

    None where that was not kept. Earlier versions kept numbers in the order of the split: these need the photographs
    in `data`, and count only where they are the same ones.
    """
    if rows := read_judged(run_dir / PREDICTIONS):
        return rows
    if data is None:
        return None
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    labels_N = data.store.labels[torch.from_numpy(data.split.val)]
    try:
        kept = load_file(run_dir / EARLIER_PREDICTIONS)
        accuracy = json.loads((run_dir / BEST_METRICS).read_text(encoding="utf-8"))["val_acc"]
        predicted_N, probability_N = kept["predicted"], kept["probability"]
    except (OSError, SafetensorError, ValueError, KeyError):
        return None
    same = len(predicted_N) == len(labels_N) and int((predicted_N == labels_N).sum()) / len(labels_N) == accuracy
    return _named(predicted_N, probability_N, data) if same else None


def _predictions_now(
    config: RunConfig, classes: Sequence[str], weights: Path, data: LeafData, device_name: Literal["auto", "cpu"]
) -> list[Judged]:
    import torch

    trial, data = config.trial, data.as_said(config.data)
    device = torch.device(find_device(device_name))
    precision = resolve_precision(trial.precision, device)
    network = load_trained(trial, len(classes), weights, device)
    batches = split_batches(trial, DeviceData(data, device), "val", DTYPES[precision])
    found = Evaluator(network, len(classes), precision, device).evaluate(batches)
    return _named(found.predicted_N, found.probability_N, data)


def _named(predicted_N: Tensor, probability_N: Tensor, data: LeafData) -> list[Judged]:
    import torch

    photographs = [data.store.paths[index] for index in data.split.val]
    labels = data.store.labels[torch.from_numpy(data.split.val)].tolist()
    return judged(photographs, labels, predicted_N.tolist(), probability_N.tolist(), data.classes)


def _pictures(run_dir: Path, photographs: Sequence[str], data: LeafData | None, image_size: int) -> dict[str, bytes]:
    """Returns small pictures of those photographs that are still what they were when the network was trained."""
    if data is None:
        return {}
    store = data.store_for(image_size)
    digest_of = {row.photograph: row.digest for row in find_split(run_dir) or []}
    place = {path: index for index, path in enumerate(store.paths)}
    return {
        photograph: thumbnail(store.images[place[photograph]])
        for photograph in photographs
        if photograph in place and digest_of.get(photograph) in (None, store.digests[place[photograph]])
    }


def data_uri(jpeg: bytes) -> str:
    """Returns the address under which a page finds a picture inside itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def thumbnail(image_HWC: Tensor) -> bytes:
    """Returns a stored picture, made small, as JPEG."""
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
