"""A network's loss and confusion matrix over a split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn import functional as F

from tune_cropshield.config.settings import Precision, TrialConfig
from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.data.preparation import normalisation_of
from tune_cropshield.data.windows import IGNORE_INDEX, EvaluationBatch, evaluation_batches
from tune_cropshield.training.auc import one_vs_rest_auc
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
        """Makes the place for a batch's logits, where a captured graph finds it again."""
        self._logits_BK = torch.zeros(batch_size, len(self._confusion_KK), device=self._device)

    def evaluate(self, batches: Iterable[EvaluationBatch]) -> Evaluation:
        """Returns the figures over `batches`, all on the device.

        The model is left in the mode (training or not) it came in. The device is waited for at the end alone. No
        batches: the loss is NaN.
        """
        was_training = self._model.training
        self._model.eval()
        self._confusion_KK.zero_()
        self._loss.zero_()
        logits, labels = [self._logits_BK[:0]], list[torch.Tensor]()
        with torch.no_grad():
            for batch in batches:
                size = len(batch.labels_B)
                if size > len(self._logits_BK):
                    if len(self._logits_BK):
                        self._runner.forget()  # what is captured writes to the old place
                    self._make_room(size)
                self._runner.run("evaluation", self._add, batch)
                logits.append(self._logits_BK[:size].clone())
                labels.append(batch.labels_B)
        self._model.train(was_training)
        confusion_KK = self._confusion_KK.cpu()
        count = int(confusion_KK.sum())  # without those that only fill the last batch
        loss = float(self._loss) / count if count else float("nan")
        logits_NK = torch.cat(logits)[:count]
        labels_N = torch.cat(labels)[:count] if labels else torch.zeros(0, dtype=torch.int64, device=self._device)
        # By the logarithms: they still tell apart what as a probability is 1.
        auc = float(one_vs_rest_auc(logits_NK.log_softmax(dim=1), labels_N))
        return Evaluation(loss, confusion_KK, labels_N.cpu(), logits_NK.softmax(dim=1).cpu(), auc)

    def _add(self, batch: EvaluationBatch) -> None:
        with autocast(self._precision, self._device):
            logits_BK = self._model(batch.images())
        logits_BK = logits_BK.float()
        self._loss += F.cross_entropy(logits_BK, batch.labels_B, ignore_index=IGNORE_INDEX, reduction="sum")
        predicted_B = logits_BK.softmax(dim=1).argmax(dim=1)
        count_confusion(self._confusion_KK, predicted_B, batch.labels_B)
        self._logits_BK[: len(logits_BK)] = logits_BK


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
    at_once, normalisation = batch or evaluation_batch(trial), normalisation_of(trial.model)
    return evaluation_batches(data.feed(size), data.labels_N, indices, at_once, size, dtype, normalisation)
