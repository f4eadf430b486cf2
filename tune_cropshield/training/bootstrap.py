"""How exact a metric is that is no share of photographs: what it would be on other photographs of the same kind.

They are drawn, with replacement, from those that were judged (the bootstrap; Efron and Tibshirani, 1993).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tune_cropshield.config.goals import OF_CLASSES
from tune_cropshield.training.predictions import Judged

DRAWS = 1000


def bootstrapped(metric: str, rows: Sequence[Judged]) -> NDArray[np.float64] | None:
    """Returns the metric on as many photographs drawn from `rows`, (DRAWS,), the same each time.

    None for a metric that does not follow from true and predicted classes, and where there are no rows.
    """
    if metric not in OF_CLASSES or not rows:
        return None
    classes = sorted({name for row in rows for name in (row.true_class, row.predicted)})
    place = {name: number for number, name in enumerate(classes)}
    confusion_KK = np.zeros((len(classes), len(classes)))
    np.add.at(confusion_KK, ([place[row.true_class] for row in rows], [place[row.predicted] for row in rows]), 1)
    # To draw photographs is to draw the cells of the confusion matrix, each as often as it was met.
    drawn = np.random.default_rng(0).multinomial(len(rows), confusion_KK.ravel() / len(rows), DRAWS)
    drawn_DKK = drawn.reshape(DRAWS, len(classes), len(classes))
    right_DK, true_DK, predicted_DK = np.einsum("dkk->dk", drawn_DKK), drawn_DKK.sum(2), drawn_DKK.sum(1)
    if metric == "val_acc":
        return np.asarray(right_DK.sum(1) / len(rows))
    parts_DK = 2 * right_DK, true_DK + predicted_DK
    if metric == "val_balanced_acc":
        parts_DK = right_DK, true_DK
    shares_DK = np.divide(*parts_DK, out=np.full(right_DK.shape, np.nan), where=parts_DK[1] > 0)
    return np.asarray(np.nanmean(shares_DK, axis=1))


def interval(metric: str, rows: Sequence[Judged]) -> tuple[float, float] | None:
    """Returns the 95 % interval of a metric; None where it is not known."""
    values = bootstrapped(metric, rows)
    return None if values is None else (float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975)))


def standard_error(metric: str, rows: Sequence[Judged]) -> float | None:
    """Returns the standard error of a metric; None where it is not known."""
    values = bootstrapped(metric, rows)
    return None if values is None else float(values.std())
