"""How to repeat the search, the versions and hardware it ran with, and every trial as a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tune_cropshield.config.space import SETTINGS
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.page import Block, Command, Section, Table, Text
from tune_cropshield.outcome.report.search_record import SearchRecord
from tune_cropshield.outcome.trained import BEST
from tune_cropshield.search.earlier import read_knowledge, search_again
from tune_cropshield.shell import command
from tune_cropshield.training.run_folder import CONFIG


def trials_section(record: SearchRecord) -> Section:
    """Returns the table of all trials, which the charts are drawn from."""
    names, goal = record.parameter_names, record.goal
    rows = []
    for trial in record.trials:
        best = trial.best or {}
        beside = () if goal.is_accuracy else (words.accuracy(trial.accuracy),)
        metrics = (goal.text(trial.value), *beside, str(best.get("epoch", "–")), str(len(trial.lines)))
        rows.append(
            (
                str(trial.number),
                trial.outcome,
                *(words.setting(trial.parameters.get(name)) for name in names),
                *metrics,
                trial.reason,
            )
        )
    highlighted = frozenset(
        index
        for index, trial in enumerate(record.trials)
        if record.winner is not None and trial.number == record.winner.number
    )
    worth = (f"best {goal.name}", *(() if goal.is_accuracy else ("val_acc",)))
    header = ("trial", "outcome", *names, *worth, "best epoch", "epochs", "reason")
    table = Table(
        header,
        rows,
        f"All trials ({len(rows)}); trials.csv holds more columns",
        text_columns=2,
        folded=True,
        highlighted=highlighted,
    )
    return Section("trials", "All trials", [table])


def section(record: SearchRecord) -> Section:
    """Returns the commands and the environment."""
    folder, best = record.folder, record.folder / BEST

    def to_copy(label: str, *words: str | Path) -> Command:
        return Command(label, command(*words, anywhere=True))

    blocks: list[Block] = [
        Command("Search again, with the same settings", search_again(folder / SETTINGS, read_knowledge(folder))),
        to_copy("Continue this search, or extend it with --trials", "search", "--out", folder, "--resume"),
    ]
    if best.is_dir():
        blocks.append(to_copy("Train the winner again", "train", "--config", best / CONFIG))
        if len(record.with_result) > 1:
            blocks.append(to_copy("Test whether the gain could be chance", "confirm", folder))
        if record.starts and record.starts[-1].get("test"):
            blocks.append(
                to_copy("Evaluate the winner on the test photographs, once", "evaluate", best, "--split", "test")
            )
        blocks += [
            to_copy("Print the winner's settings for other programs", "export", folder, "--format", "json"),
            to_copy(
                "Write the winner's network for other programs (needs the extra packages for ONNX)",
                *("export", folder, "--format", "onnx"),
            ),
        ]
    blocks += [
        to_copy("Show all curves in TensorBoard", "board", folder),
        to_copy("Write this page again", "report", folder),
    ]
    if not record.starts:
        blocks.append(Text("The versions and the hardware of this search were not recorded."))
        return Section("repeat", "Environment, and how to repeat it", blocks)
    last, more = record.starts[-1], len(record.starts) - 1
    blocks.append(Command(f"The command that started it{_where(record.starts[0])}", _command(record.starts[0])))
    if more:
        blocks.append(
            Command(
                f"It was resumed {more} time{'s' if more > 1 else ''}, the last time{_where(last)} with",
                _command(last),
            )
        )
        blocks.append(Text("The table describes the last start."))
    blocks.append(Table(("what", "value"), _environment(record, last), "Environment", text_columns=2))
    return Section("repeat", "Environment, and how to repeat it", blocks)


def _command(start: dict[str, Any]) -> str:
    return command(*map(str, start.get("argv", [])), anywhere=True)


def _where(start: dict[str, Any]) -> str:
    """Returns which folder a start's relative paths are seen from; earlier versions did not keep it."""
    return f" in {start['folder']}" if "folder" in start else ""


def _environment(record: SearchRecord, start: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("started", str(start.get("started", "–"))),
        ("photographs", _photographs(record, start)),
        ("device", _device(start)),
        ("trials in parallel", str(start.get("trials_at_once", "–"))),
        ("system", str(start.get("platform", "–"))),
    ]
    versions = start.get("versions", {})
    return rows + [(str(name), str(version)) for name, version in versions.items()]


def _photographs(record: SearchRecord, start: dict[str, Any]) -> str:
    where = next((trial.config.data.place for trial in record.trials if trial.config is not None), "")
    counts = ", ".join(
        f"{start[name]} for {use}"
        for name, use in (("train", "training"), ("val", "validation"), ("test", "the test"))
        if name in start
    )
    return f"{start.get('photographs', '–')} in {start.get('classes', '–')} classes ({counts}), from {where}"


def _device(start: dict[str, Any]) -> str:
    if start.get("device") == "cuda":
        return f"{start.get('gpus', 1)} x {start.get('gpu', 'GPU')}, driver {start.get('driver', 'unknown')}"
    return f"CPU, {start.get('cores', '–')} cores"
