"""A network's loss and confusion matrix over a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.data.windows import IGNORE_INDEX, EvaluationBatch, evaluation_batches
from tune_cropshield.training.graphs import Eager, Runner
from tune_cropshield.training.metrics import Evaluation, count_confusion
from tune_cropshield.training.precision import autocast


class Evaluator:
    """Evaluates one network again and again."""

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        precision: Precision,
        device: torch.device,
        runner: Runner | None = None,
    ) -> None:
        self._model, self._precision, self._device, self._runner = model, precision, device, runner or Eager()
        self._confusion_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._make_room(0)

    def _make_room(self, batch_size: int) -> None:
        """Makes the places for a batch's predictions, where a captured graph finds them again."""
        self._predicted_B = torch.zeros(batch_size, dtype=torch.int64, device=self._device)
        self._probability_B = torch.zeros(batch_size, device=self._device)

    def evaluate(self, batches: Iterable[EvaluationBatch]) -> Evaluation:
        """Returns the figures over `batches`, all on the device.

        The model is left in the mode (training or not) it came in. The device is waited for at the end alone. No
        batches: the loss is NaN.
        """
        was_training = self._model.training
        self._model.eval()
        self._confusion_KK.zero_()
        self._loss.zero_()
        predicted, probability = [self._predicted_B[:0]], [self._probability_B[:0]]
        with torch.no_grad():
            for batch in batches:
                size = len(batch.labels_B)
                if size > len(self._predicted_B):
                    if len(self._predicted_B):
                        self._runner.forget()  # what is captured writes to the old places
                    self._make_room(size)
                self._runner.run("evaluation", self._add, batch)
                predicted.append(self._predicted_B[:size].clone())
                probability.append(self._probability_B[:size].clone())
        self._model.train(was_training)
        confusion_KK = self._confusion_KK.cpu()
        count = int(confusion_KK.sum())  # without those that only fill the last batch
        loss = float(self._loss) / count if count else float("nan")
        return Evaluation(loss, confusion_KK, torch.cat(predicted)[:count].cpu(), torch.cat(probability)[:count].cpu())

    def _add(self, batch: EvaluationBatch) -> None:
        with autocast(self._precision, self._device):
            logits_BK = self._model(batch.images())
        logits_BK = logits_BK.float()
        self._loss += F.cross_entropy(logits_BK, batch.labels_B, ignore_index=IGNORE_INDEX, reduction="sum")
        probability_B, predicted_B = logits_BK.softmax(dim=1).max(dim=1)
        count_confusion(self._confusion_KK, predicted_B, batch.labels_B)
        self._predicted_B[: len(predicted_B)] = predicted_B
        self._probability_B[: len(predicted_B)] = probability_B


def evaluation_batch(trial: TrialConfig) -> int:
    """Returns how many images `trial` evaluates at once: as many as it trains on.

    Without gradients more would fit, but the allocator then holds blocks of both sizes: evaluating twice as many took a
    tenth of an 8 GB budget from training (measured on an H200).
    """
    return trial.eval_batch or trial.pair[0]


def split_batches(
    trial: TrialConfig, data: DeviceData, split: str, dtype: torch.dtype, batch: int | None = None
) -> Iterator[EvaluationBatch]:
    """Yields the batches of a split ("val" or "test") on which `trial` is judged, at the size that training ends with.

    Args:
        dtype: of the images.
        batch: images at once; None for the trial's own number.
    """
    size = trial.final_size
    indices = data.indices(split)
    return evaluation_batches(data.feed(size), data.labels_N, indices, batch or evaluation_batch(trial), size, dtype)
