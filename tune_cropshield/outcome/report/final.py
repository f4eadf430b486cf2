"""The final training: the winner, trained again after the trials."""

from __future__ import annotations

from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.page import Block, KeyFigure, Section, Table, Text
from tune_cropshield.outcome.report.search_record import SearchRecord
from tune_cropshield.outcome.trained import BEST
from tune_cropshield.search.endings import FINISHED, RUNNING, UNFINISHED
from tune_cropshield.search.final import FinalTraining

EXPLANATION = (
    "After the trials a new network was trained with the winner's setting, on all cores and for as many epochs as the "
    "time allowed. The network that is better on the validation photographs is the result; if both are equal, the one "
    "that was trained longer."
)


SHOWN = ("val_acc", "val_macro_f1", "val_loss")


def key_figures(record: SearchRecord) -> list[KeyFigure]:
    """Returns the goal's value of the final training where it is the result; nothing where it is not."""
    if record.final is None:
        return []
    goal = record.final.goal
    return [KeyFigure(goal.text(record.final.value), f"{goal.name} after the final training")]


def section(record: SearchRecord) -> Section | None:
    """Returns each final training with its length and its best epoch; None where there was none."""
    if not record.final_trainings:
        return None
    if record.final is not None:
        epochs = words.counted(len(record.final.lines), "epoch")
        told = f"{BEST}/ holds the network of the final training ({record.final.folder.name}, {epochs})."
    else:
        told = f"{BEST}/ holds the network of the best trial: the final training was no better."
    rows = [_row(training, record.running) for training in record.final_trainings]
    own = () if record.goal.name in SHOWN else (record.goal.name,)
    header = ("training", "setting of", "outcome", "epochs", "best epoch", *own, *SHOWN)
    blocks: list[Block] = [
        Text(told, strong=True),
        Text(EXPLANATION),
        Table(header, rows, "Final trainings; figures are those of the best epoch", text_columns=3),
    ]
    return Section("final", "The final training", blocks)


def _row(training: FinalTraining, running: bool) -> tuple[str, ...]:
    best, goal = training.best or {}, training.goal
    outcome = training.outcome or (RUNNING if running else UNFINISHED)
    return (
        training.folder.name,
        f"trial {training.trial}" if training.trial is not None else "a starting point",
        outcome if outcome == FINISHED or not training.reason else f"{outcome}: {training.reason}",
        str(len(training.lines)),
        str(best.get("epoch", "–")),
        *(() if goal.name in SHOWN else (goal.text(training.value),)),
        words.accuracy(best.get("val_acc")),
        words.accuracy(best.get("val_macro_f1")),
        words.number(best.get("val_loss")),
    )
