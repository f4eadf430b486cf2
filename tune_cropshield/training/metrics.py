"""The one spelling of every metric, and what an evaluation yields."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tune_cropshield.config.goals import VAL_ACC, Goal, goal_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EpochMetrics:
    """One epoch's figures: a line of metrics.jsonl, a point of each TensorBoard scalar, a report to the search.

    goal: what the epoch is judged by. own: its value where that is a user's own metric, NaN elsewhere.
    """

    epoch: int  # 1 after the first
    updates: int  # applied ones since the start
    train_loss: float  # mean over the samples of applied updates, with smoothing, class weights and mixing
    val_loss: float  # plain mean cross-entropy over the validation split, whatever the training's loss
    val_acc: float  # share of the validation split classified rightly
    val_macro_f1: float  # mean over classes of 2PR / (P + R); a class never met nor predicted is left out
    # Those of later versions have a default: an earlier version's checkpoint lacks them.
    val_balanced_acc: float = math.nan  # mean recall of the classes that have validation photographs
    val_auc: float = math.nan  # see `auc.one_vs_rest_auc`
    lr: float  # of the epoch's last update
    grad_norm_p50: float  # over applied updates: before clipping, unscaled
    grad_norm_p95: float
    clip_rate: float  # share of applied updates that clipping changed
    skipped_steps: int  # updates left out because a gradient was not finite
    loss_scale: float  # the gradient scaler's; 1 without one
    images_per_s: float  # training images over the epoch's training time, waiting and out-of-memory retries included
    data_wait_s: float  # time the loop stood waiting for training images
    epoch_s: float  # training and evaluation
    peak_vram_mib: float  # largest reserved by the allocator in the epoch; 0 on a CPU
    goal: Goal = VAL_ACC
    own: float = math.nan

    def as_dict(self) -> dict[str, float | int]:
        """Returns name -> value, in the order above, the own metric last."""
        values = {name: getattr(self, name) for name in METRIC_NAMES}
        return values if self.goal.name in METRIC_NAMES else values | {self.goal.name: self.own}

    def line(self) -> dict[str, Any]:
        """Returns its line of metrics.jsonl: the metrics, and what the epoch is judged by."""
        return self.as_dict() | self.goal.marks()


METRIC_NAMES = tuple(name for name in EpochMetrics.__dataclass_fields__ if name not in ("goal", "own"))


def metrics_of(line: Mapping[str, Any]) -> EpochMetrics:
    """Returns what `EpochMetrics.line` has told; it may be of an earlier version, which knew fewer metrics."""
    goal = goal_of([line])
    known = {name: line[name] for name in METRIC_NAMES if name in line}
    return EpochMetrics(**known, goal=goal, own=math.nan if goal.name in METRIC_NAMES else goal.value(line))


@dataclass(frozen=True)
class Evaluation:
    """A split's figures. confusion_KK: int64 on the CPU, rows are true classes, columns predicted ones.

    labels_N: int64 on the CPU, the true class of each sample, in their order. probabilities_NK: fp32 on the CPU, what
    the network gives each class. auc: see `one_vs_rest_auc`.
    """

    loss: float
    confusion_KK: Tensor
    labels_N: Tensor
    probabilities_NK: Tensor
    auc: float

    @property
    def predicted_N(self) -> Tensor:
        """The class that each sample is taken for, int64."""
        return self.probabilities_NK.argmax(dim=1)

    @property
    def probability_N(self) -> Tensor:
        """The probability of that class."""
        return self.probabilities_NK.amax(dim=1)

    @property
    def accuracy(self) -> float:
        return int(self.confusion_KK.diagonal().sum()) / int(self.confusion_KK.sum())

    @property
    def macro_f1(self) -> float:
        """Mean over the classes of 2TP / (true + predicted).

        A class with neither true nor predicted samples is left out.
        """
        return float(self.f1_K[self._met_K].mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have photographs."""
        count_K = self.confusion_KK.sum(1)
        return float((self.confusion_KK.diagonal().double() / count_K)[count_K > 0].mean())

    @property
    def f1_K(self) -> Tensor:
        """F1 of each class, float64 (K,); 0 where nothing was right, NaN for a class neither met nor predicted."""
        return 2 * self.confusion_KK.diagonal().double() / (self.confusion_KK.sum(0) + self.confusion_KK.sum(1))

    @property
    def _met_K(self) -> Tensor:
        return self.confusion_KK.sum(0) + self.confusion_KK.sum(1) > 0


def count_confusion(confusion_KK: Tensor, predicted_B: Tensor, labels_B: Tensor) -> None:
    """Adds a batch's (true, predicted) pairs to `confusion_KK` (int64), on the device, without waiting for it.

    Negative labels do not count.
    """
    num_classes = confusion_KK.shape[0]
    cells_B = labels_B.clamp(min=0) * num_classes + predicted_B
    confusion_KK.view(-1).scatter_add_(0, cells_B, (labels_B >= 0).to(cells_B.dtype))
