"""What a network said of each validation photograph in its best epoch: predictions.csv, with the photographs' names."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tune_cropshield.files import read_csv, write_csv

PREDICTIONS = "predictions.csv"
COLUMNS = ("photograph", "true_class", "predicted", "probability")


@dataclass(frozen=True)
class Judged:
    """A photograph that a network has judged.

    photograph: its path inside the folder of photographs, with forward slashes. probability: of the predicted class,
    from 0 to 1.
    """

    photograph: str
    true_class: str
    predicted: str
    probability: float

    @property
    def right(self) -> bool:
        return self.predicted == self.true_class


def write_judged(path: Path, rows: Iterable[Judged]) -> None:
    """Writes a row per photograph, in their order. Raises DiskFull."""
    write_csv(path, COLUMNS, ((row.photograph, row.true_class, row.predicted, row.probability) for row in rows))


def read_judged(path: Path) -> list[Judged] | None:
    """Returns the rows of such a file; None where there is none, or it is damaged."""
    try:
        return [
            Judged(row["photograph"], row["true_class"], row["predicted"], float(row["probability"]))
            for row in read_csv(path)
        ]
    except (OSError, ValueError, KeyError, TypeError, csv.Error):
        return None


def judged(
    photographs: Sequence[str],
    labels: Sequence[int],
    predicted: Sequence[int],
    probabilities: Sequence[float],
    classes: Sequence[str],
) -> list[Judged]:
    """Returns the rows of photographs whose true and predicted classes are given by number."""
    return [
        Judged(photograph, classes[label], classes[place], probability)
        for photograph, label, place, probability in zip(photographs, labels, predicted, probabilities, strict=True)
    ]
