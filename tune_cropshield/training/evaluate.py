"""A network's loss and confusion matrix over a split."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tune_cropshield.training.metrics import Evaluation, count_confusion
from tune_cropshield.training.precision import Precision, autocast


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], num_classes: int, precision: Precision, device: torch.device) -> Evaluation:
    """Returns the mean loss and the confusion matrix of `model` over `batches` of (images (B, 3, H, W), labels (B,)), all on `device`.

    The model is left in the mode (training or not) it came in. The device is waited for once, at the end. No batches: the loss is NaN.
    """
    was_training = model.training
    model.eval()
    confusion_KK = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)
    with torch.inference_mode():
        for images_BCHW, labels_B in batches:
            with autocast(precision, device):
                logits_BK = model(images_BCHW)
            loss += F.cross_entropy(logits_BK.float(), labels_B, reduction="sum")
            count_confusion(confusion_KK, logits_BK, labels_B)
    model.train(was_training)
    confusion_KK = confusion_KK.cpu()
    return Evaluation(float(loss) / int(confusion_KK.sum()) if confusion_KK.sum() else float("nan"), confusion_KK)
