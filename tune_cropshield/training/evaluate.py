"""A network's loss and confusion matrix over a split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F

from tune_cropshield.data.windows import EvaluationBatch
from tune_cropshield.training.graphs import Eager, Runner
from tune_cropshield.training.metrics import Evaluation, count_confusion
from tune_cropshield.training.precision import Precision, autocast


class Evaluator:
    """Evaluates one network again and again."""

    def __init__(self, model: nn.Module, num_classes: int, precision: Precision, device: torch.device, runner: Runner | None = None) -> None:
        self._model, self._precision, self._device, self._runner = model, precision, device, runner or Eager()
        self._confusion_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self._loss = torch.zeros((), dtype=torch.float64, device=device)

    def evaluate(self, batches: Iterable[EvaluationBatch]) -> Evaluation:
        """Returns the mean loss and the confusion matrix over `batches`, all on the device.

        The model is left in the mode (training or not) it came in. The device is waited for once, at the end. No batches: the loss is NaN.
        """
        was_training = self._model.training
        self._model.eval()
        self._confusion_KK.zero_()
        self._loss.zero_()
        with torch.no_grad():
            for batch in batches:
                self._runner.run("evaluation", self._add, batch)
        self._model.train(was_training)
        confusion_KK = self._confusion_KK.cpu()
        count = int(confusion_KK.sum())
        return Evaluation(float(self._loss) / count if count else float("nan"), confusion_KK)

    def _add(self, batch: EvaluationBatch) -> None:
        with autocast(self._precision, self._device):
            logits_BK = self._model(batch.images())
        self._loss += F.cross_entropy(logits_BK.float(), batch.labels_B, reduction="sum")
        count_confusion(self._confusion_KK, logits_BK, batch.labels_B)
