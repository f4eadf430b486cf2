"""What is computed from a network's answers, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tune_cropshield.training.auc import one_vs_rest_auc
from tune_cropshield.training.metrics import EpochMetrics, Evaluation


def judged(confusion: list[list[int]]) -> Evaluation:
    nothing = torch.zeros(0)
    return Evaluation(0.0, torch.tensor(confusion), nothing.long(), nothing[:, None], math.nan)


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_are_there() -> None:
    assert judged([[9, 1], [1, 1]]).balanced_accuracy == pytest.approx(0.7)  # recalls 0.9 and 0.5
    assert judged([[9, 1, 0], [1, 0, 1], [0, 0, 0]]).balanced_accuracy == pytest.approx(0.45)  # none of the third class
    assert judged([[78, 0], [1, 0]]).balanced_accuracy == 0.5  # always the largest


def test_auc_is_the_chance_that_a_photograph_of_the_class_scores_higher() -> None:
    labels_N = torch.tensor([0, 0, 1, 1])
    scores_NK = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [0.2, 0.8]])
    # Class 0: 0.9 and 0.4 against 0.5 and 0.2 are 3 of 4 pairs in order; class 1 is the mirror image.
    assert float(one_vs_rest_auc(scores_NK, labels_N)) == 0.75


def test_equal_scores_count_half_in_auc() -> None:
    labels_N = torch.tensor([0, 1, 1])
    scores_NK = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]])
    assert float(one_vs_rest_auc(scores_NK, labels_N)) == 0.75  # of two pairs one is in order, one is level
    assert float(one_vs_rest_auc(torch.zeros(3, 2), labels_N)) == 0.5


def test_classes_without_photographs_are_left_out_of_auc() -> None:
    labels_N = torch.tensor([0, 0, 1])
    scores_NK = torch.tensor([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.55, 0.4, 0.05]])
    # Class 0: 1 of 2 pairs; class 1: 0.4 is above both; class 2 has no photograph.
    assert float(one_vs_rest_auc(scores_NK, labels_N)) == 0.75


def test_auc_is_not_a_number_where_nothing_is_compared_or_a_score_is_none() -> None:
    assert math.isnan(float(one_vs_rest_auc(torch.rand(3, 2), torch.zeros(3, dtype=torch.int64))))
    assert math.isnan(float(one_vs_rest_auc(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))))
    scores_NK = torch.tensor([[0.6, 0.4], [math.nan, 0.5], [0.3, 0.7]])
    assert math.isnan(float(one_vs_rest_auc(scores_NK, torch.tensor([0, 1, 1]))))


def test_auc_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.randint(0, 5, (300,), generator=generator)
    scores_NK = torch.randint(1, 9, (300, 5), generator=generator).double()  # many are equal
    scores_NK[range(300), labels_N] += 2
    expected = [metrics.roc_auc_score(labels_N == label, scores_NK[:, label]) for label in range(5)]
    assert float(one_vs_rest_auc(scores_NK, labels_N)) == pytest.approx(sum(expected) / 5, abs=1e-12)


def test_metrics_of_an_earlier_version_are_read_without_those_it_did_not_know() -> None:
    known = {name: 1 for name in EpochMetrics.__dataclass_fields__ if name not in ("val_balanced_acc", "val_auc")}
    metrics = EpochMetrics(**known)
    assert math.isnan(metrics.val_balanced_acc) and math.isnan(metrics.val_auc)
