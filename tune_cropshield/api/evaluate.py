"""`evaluate`: a trained network on its own validation or test photographs, or on any other folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tune_cropshield.api.arguments import AnyColumns, AnyPath, check_choice, path_of, places_of
from tune_cropshield.api.names import run_named
from tune_cropshield.api.report import write_again
from tune_cropshield.config.faults import command_line as command_words
from tune_cropshield.config.faults import validated
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.registry import is_own
from tune_cropshield.config.settings import DataConfig
from tune_cropshield.data.split import TEST
from tune_cropshield.errors import UserError
from tune_cropshield.files import as_utf8, check_can_be_made
from tune_cropshield.outcome.evaluation import JUDGED_PARTS, free_name, write_record
from tune_cropshield.training.predictions import Judged, write_judged
from tune_cropshield.training.run_folder import CONFIG

if TYPE_CHECKING:  # PyTorch takes seconds to import: a wrong folder is told about before
    from tune_cropshield.training.metrics import Evaluation


@dataclass(frozen=True)
class EvaluationResult:
    """A network's figures on photographs.

    split: "val", "test", or "all" of a folder. data: the folder. own: whether it holds what the network was trained
    on, and nothing else. classes: their names, in the order of the rows and columns of `evaluation.confusion_KK` (rows
    are true classes). judged: what it says of each photograph. expected: how many there would be if none were left out.
    trained, validated: how many of them have the content of a photograph that it was trained on, or validated on only;
    None where that is not known.
    remarks: sentences on what was left out, on photographs that it was trained on, and on a run of an earlier version.
    table, picture: the confusion matrix as .csv and .png. predictions, wrong: all photographs with what they were taken
    for, and those taken for another class, the most confident first, as .csv. report: the search's report.html that was
    written again. own_metric: {name: value} of the user's own metric that the network was chosen by; empty elsewhere.
    """

    split: str
    data: Path
    own: bool
    classes: list[str]
    evaluation: Evaluation = field(repr=False)
    judged: Sequence[Judged] = field(repr=False)
    expected: int
    trained: int | None
    validated: int | None
    remarks: list[str]
    table: Path
    picture: Path
    predictions: Path
    wrong: Path
    report: Path | None = None
    own_metric: Mapping[str, float] = field(default_factory=dict)

    @property
    def photographs(self) -> int:
        """How many photographs were judged."""
        return len(self.judged)

    @property
    def right(self) -> int:
        """Of how many photographs the class was recognised."""
        return sum(row.right for row in self.judged)

    @property
    def accuracy(self) -> float:
        """The share of photographs whose class was recognised, from 0 to 1."""
        return self.evaluation.accuracy

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the accuracy, which speaks for other photographs only where these are `new`."""
        from tune_cropshield.outcome.shares import interval

        return interval(self.right, self.photographs)

    @property
    def new(self) -> bool:
        """Whether the network was neither trained on any of these photographs nor chosen by it, as far as is known."""
        return self.trained == self.validated == 0

    @property
    def macro_f1(self) -> float:
        """The mean F1 of the classes that have photographs here."""
        found = [row["F1"] for row in self.class_rows() if row["photographs"]]
        return float(sum(found) / len(found))

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have photographs here."""
        return self.evaluation.balanced_accuracy

    @property
    def auc(self) -> float | None:
        """The area under the ROC curve, each class against all others, in the mean over the classes that have
        photographs here; None where there is only one.
        """
        return None if math.isnan(self.evaluation.auc) else self.evaluation.auc

    @property
    def classes_present(self) -> int:
        """How many classes have photographs here."""
        return sum(row["photographs"] > 0 for row in self.class_rows())

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        return self.evaluation.loss

    def class_rows(self) -> list[dict[str, Any]]:
        """Returns a row per class: class, precision, recall, F1, photographs.

        Precision of a class that was never predicted, and recall and F1 of one without photographs, are None.
        """
        confusion_KK = self.evaluation.confusion_KK
        right_K, met_K, predicted_K = (
            counts.tolist() for counts in (confusion_KK.diagonal(), confusion_KK.sum(1), confusion_KK.sum(0))
        )
        return [
            {
                "class": name,
                "precision": right / predicted if predicted else None,
                "recall": right / met if met else None,
                "F1": f1 if met else None,
                "photographs": met,
            }
            for name, right, met, predicted, f1 in zip(
                self.classes, right_K, met_K, predicted_K, self.evaluation.f1_K.tolist(), strict=True
            )
        ]

    def as_dict(self) -> dict[str, Any]:
        """Returns what `evaluate --json` prints: all figures as plain values; a share of nothing is None."""
        return {
            "split": self.split,
            "data": as_utf8(str(self.data)),
            "own": self.own,
            "photographs": self.photographs,
            "expected": self.expected,
            "trained": self.trained,
            "validated": self.validated,
            "right": self.right,
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "macro_f1": self.macro_f1,
            "balanced_acc": self.balanced_accuracy,
            "auc": self.auc,
            "classes_present": self.classes_present,
            "loss": self.loss,
            **self.own_metric,
            "remarks": self.remarks,
            "classes": self.class_rows(),
            "confusion": self.evaluation.confusion_KK.tolist(),
        }


def evaluate(
    run_dir: AnyPath,
    *,
    data: AnyPath | None = None,
    labels: AnyPath | None = None,
    columns: AnyColumns | None = None,
    split: Literal["val", "test", "all"] | None = None,
    to: AnyPath | None = None,
) -> EvaluationResult:
    """Returns the figures of a trained network, and writes its confusion matrix and what it says of each photograph.

    Args:
        run_dir: A folder with config.toml, classes.json and model.safetensors: OUT/best, OUT/t000 or `train`'s; of a
            search's folder, its best/. In results/runs, the name is enough.
        data: The folder of photographs; left out, those it was trained on. Classes are compared by name.
        labels, columns: A table of labels, as in `tune_cropshield.search`; its paths begin in `data`, or in its folder.
        split: "val" and "test" are the photographs that it was validated on and those that no training used, wherever
            they have moved; "test" is meant to be read once, for the winner. "all" is a whole folder. Left out, "val"
            for the folder it was trained on, and "all" for another one.
        to: The folder for confusion_SPLIT.csv and .png, predictions_SPLIT.csv, wrong_SPLIT.csv and
            evaluation_SPLIT.json; left out, `run_dir`. Of another folder the files end on all_FOLDER, or
            on all_FOLDER-2 where those are of one elsewhere that has the same name.

    Raises:
        UserError: `run_dir` is no trained run or damaged, there are no such photographs, or `to` cannot be written to.
    """
    from tune_cropshield.outcome.trained import read_run

    run_dir = run_named(run_dir)
    if split is not None:
        check_choice("--split", split, JUDGED_PARTS)
    config, classes, weights = read_run(run_dir)
    given = _places(data, labels, columns)
    if not given and not config.data.given:
        raise UserError(f"{run_dir / CONFIG} names no photographs: give --data DIR")
    folder = path_of(to, "--to") if to is not None else run_dir
    check_can_be_made(folder, "--to")
    validated(DataConfig, given, command_words("data", given))
    from tune_cropshield.outcome.evaluation import choose_photographs, evaluate_on, remarks
    from tune_cropshield.outcome.trained import earlier_preparation

    photographs = choose_photographs(run_dir, config, classes, given, split, cache_dir())
    evaluation, rows = evaluate_on(photographs, config, classes, weights)
    part, name = photographs.part, free_name(folder, photographs.name, photographs.store.root)
    own_metric, noted = _own_value(config.trial.metric, evaluation)
    result = EvaluationResult(
        split=part,
        data=photographs.store.root,
        own=photographs.own,
        classes=classes,
        evaluation=evaluation,
        judged=rows,
        expected=photographs.expected,
        trained=photographs.trained,
        validated=photographs.validated,
        remarks=[*earlier_preparation(run_dir), *remarks(photographs, classes, rows), *noted],
        table=folder / f"confusion_{name}.csv",
        picture=folder / f"confusion_{name}.png",
        predictions=folder / f"predictions_{name}.csv",
        wrong=folder / f"wrong_{name}.csv",
        own_metric=own_metric,
    )
    try:
        _write(result, folder, weights, name)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}): give another folder (--to)") from None
    return replace(result, report=_report_again(result, run_dir, folder, weights)) if part == TEST else result


def _places(data: AnyPath | None, labels: AnyPath | None, columns: AnyColumns | None) -> dict[str, Any]:
    """Returns what was given in [data]; nothing where the network's own photographs are meant."""
    given = {"data": data, "labels": labels, "columns": columns}
    return {name: value for name, value in places_of(given).items() if value}


def _own_value(metric: str, evaluation: Evaluation) -> tuple[dict[str, float], list[str]]:
    """Returns {name: value} of the user's own metric that the network was chosen by, and why it is not known."""
    from tune_cropshield.training.own_metric import own_value

    if not is_own(metric):
        return {}, []
    try:
        value = own_value(metric, evaluation.labels_N, evaluation.probabilities_NK)
    except UserError as error:  # the file may be gone, or its metric not defined for these photographs
        return {}, [f"what it was chosen by is not told: {error}"]
    return {metric.rpartition(":")[2]: value}, []


def _write(result: EvaluationResult, folder: Path, weights: Path, name: str) -> None:
    """Writes all files of an evaluation into `folder`, which is made where it is missing.

    name: what their names end on.
    """
    from tune_cropshield.outcome.confusion import write_confusion

    write_confusion(folder, name, result.evaluation.confusion_KK.numpy(), result.classes)
    write_judged(result.predictions, result.judged)
    wrong = sorted((row for row in result.judged if not row.right), key=lambda row: -row.probability)
    write_judged(result.wrong, wrong)
    write_record(folder, name, result.as_dict(), weights)


def _report_again(result: EvaluationResult, run_dir: Path, folder: Path, weights: Path) -> Path | None:
    """Brings the test figures into the report of the search that `run_dir` belongs to, and returns its path.

    None where there is no such report.
    """
    from tune_cropshield.search.folder import holds_search

    search_dir = run_dir.parent if run_dir.name else run_dir.absolute().parent  # as it was named
    if not holds_search(search_dir):
        return None
    if folder.absolute() != run_dir.absolute():
        with suppress(OSError, UserError):
            write_record(run_dir, TEST, result.as_dict(), weights)  # where the report looks for it
    return write_again(search_dir)
