"""`evaluate`: a trained network on the validation or the test split."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tune_cropshield.api.arguments import AnyPath, check_choice, path_of
from tune_cropshield.config.places import cache_dir
from tune_cropshield.config.settings import RunConfig
from tune_cropshield.device import find_device
from tune_cropshield.errors import UserError
from tune_cropshield.files import check_can_be_made
from tune_cropshield.training.run_folder import CONFIG

if TYPE_CHECKING:  # PyTorch takes seconds to import: a wrong folder is told about before
    from tune_cropshield.training.metrics import Evaluation

SPLITS = ("val", "test")


@dataclass(frozen=True)
class EvaluationResult:
    """A network's figures on one split.

    classes: their names, in the order of the rows and columns of `evaluation.confusion_KK` (rows are true classes).
    table, picture: where the confusion matrix was written, as .csv and as .png.
    """

    split: str
    classes: list[str]
    evaluation: Evaluation
    table: Path
    picture: Path

    @property
    def photographs(self) -> int:
        """How many photographs the split holds."""
        return int(self.evaluation.confusion_KK.sum())

    @property
    def accuracy(self) -> float:
        """The share of photographs whose class was recognised, from 0 to 1."""
        return self.evaluation.accuracy

    @property
    def macro_f1(self) -> float:
        """The mean of the classes' F1."""
        return self.evaluation.macro_f1

    @property
    def loss(self) -> float:
        """The mean cross-entropy."""
        return self.evaluation.loss

    def class_rows(self) -> list[dict[str, Any]]:
        """Returns a row per class: class, precision, recall, F1, photographs.

        Precision of a class that was never predicted, recall of one without photographs, and F1 of one with neither
        are None.
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
                "F1": f1 if met or predicted else None,
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
            "photographs": self.photographs,
            "accuracy": self.accuracy,
            "macro_f1": self.macro_f1,
            "loss": self.loss,
            "classes": self.class_rows(),
            "confusion": self.evaluation.confusion_KK.tolist(),
        }


def evaluate(
    run_dir: AnyPath,
    *,
    data: AnyPath | None = None,
    split: Literal["val", "test"] = "val",
    to: AnyPath | None = None,
) -> EvaluationResult:
    """Returns the figures of a trained network on a split, and writes its confusion matrix.

    Args:
        run_dir: A folder with config.toml, classes.json and model.safetensors: OUT/best, OUT/t000 or `train`'s.
        data: The folder of photographs, where it has moved.
        split: "test" is meant to be read once, for the winner.
        to: The folder for confusion_SPLIT.csv and .png; left out, `run_dir`.

    Raises:
        UserError: `run_dir` is no trained run or damaged, the photographs are of other classes, or `to` cannot be
            written to.
    """
    from tune_cropshield.outcome.trained import read_run

    run_dir = path_of(run_dir, "RUN_DIR")
    check_choice("--split", split, SPLITS)
    config, classes, weights = read_run(run_dir)
    if data is not None:
        folder_of_data = str(path_of(data, "--data").absolute())
        config = config.model_copy(update={"data": config.data.model_copy(update={"dir": folder_of_data})})
    if not config.data.dir:
        raise UserError(f"{run_dir / CONFIG} names no photographs: give --data DIR")
    folder = path_of(to, "--to") if to is not None else run_dir
    check_can_be_made(folder, "--to")
    evaluation = _evaluate(config, classes, weights, split)
    from tune_cropshield.outcome.confusion import write_confusion

    try:
        table, picture = write_confusion(folder, split, evaluation.confusion_KK.numpy(), classes)
    except OSError as error:
        raise UserError(f"{folder} cannot be written to ({error.strerror}): give another folder (--to)") from None
    return EvaluationResult(split, classes, evaluation, table, picture)


def _evaluate(config: RunConfig, classes: list[str], weights: Path, split: str) -> Evaluation:
    """Returns the network's figures on `split`; the photographs of the other splits are not looked at."""
    import torch

    from tune_cropshield.data.dataset import DeviceData, open_data
    from tune_cropshield.outcome.trained import load_trained
    from tune_cropshield.training.evaluate import Evaluator, split_batches
    from tune_cropshield.training.precision import DTYPES, resolve_precision

    trial = config.trial
    device = torch.device(find_device("auto"))
    if trial.threads is not None:
        torch.set_num_threads(trial.threads)
    data = open_data(config.data, {trial.final_size}, cache_dir())
    if list(data.classes) != classes:
        raise UserError(
            f"the classes of {config.data.dir} are not those it was trained on: "
            f"{', '.join(sorted(set(data.classes) ^ set(classes)))} differ"
        )
    precision = resolve_precision(trial.precision, device)
    batches = split_batches(trial, DeviceData(data, device), split, DTYPES[precision])
    model = load_trained(trial, len(classes), weights, device)
    return Evaluator(model, len(classes), precision, device).evaluate(batches)
