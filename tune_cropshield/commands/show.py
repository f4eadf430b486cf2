"""`show`: a search, or one of its trials."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tune_cropshield.commands import arguments

if TYPE_CHECKING:
    from tune_cropshield.api.show import ShownSearch, ShownTrial

HELP = "show a search, or one of its trials"
DESCRIPTION = (
    "Shows a search: how it stands, how it went, its best trials. With TRIAL, that trial: its parameters, why it "
    "ended, the metrics of each epoch, where its files are, and the command that trains it again."
)
MOST_SHOWN = 10  # of the best trials
# Of the table of epochs, in the order in which they are given up where the terminal is narrow, the last first.
METRICS = (
    *("val_acc", "val_macro_f1", "val_loss", "train_loss", "lr", "epoch_s", "images_per_s", "clip_rate"),
    *("val_balanced_acc", "val_auc"),
    *("grad_norm_p50", "grad_norm_p95", "skipped_steps", "data_wait_s", "peak_vram_mib", "updates", "loss_scale"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "search_dir", type=arguments.path, metavar="SEARCH_DIR", help="a search's folder, or its name in results/runs"
    )
    parser.add_argument("trial", nargs="?", metavar="TRIAL", help="a number, t003, best or final")
    parser.add_argument("--json", action="store_true", help="print one object, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints the search or the trial."""
    from tune_cropshield.api.show import ShownSearch, show
    from tune_cropshield.commands.tables import print_json

    found = show(args.search_dir, args.trial)
    if args.json:
        print_json(found.as_dict())
    elif isinstance(found, ShownSearch):
        _print_search(found)
    else:
        _print_trial(found)
    return 0


def _print_search(found: ShownSearch) -> None:
    from tune_cropshield.commands.tables import Kind, console, print_lines, print_table
    from tune_cropshield.outcome import words
    from tune_cropshield.outcome.trained import BEST
    from tune_cropshield.search.endings import RUNNING
    from tune_cropshield.shell import command

    about, where = found.overview, console()
    counts, lines = found.photographs, [f"{about.folder}: {about.state}{': ' if about.why else ''}{about.why}"]
    lines.append(f"network: {about.model}" + (f"; {found.fine_tuning}" if found.fine_tuning else ""))
    if counts:
        parts = ", ".join(f"{counts[part]} {part}" for part in ("train", "val", "test") if part in counts)
        lines.append(
            f"photographs: {counts.get('photographs', '?')} in {counts.get('classes', '?')} classes ({parts}), "
            f"from {about.data}"
        )
    else:
        lines.append(f"photographs: {about.data or 'drawn'}")
    if about.begun is not None:
        took = f", {words.seconds(found.seconds)} in {words.counted(found.starts, 'start')}" if found.starts else ""
        lines.append(f"begun: {about.begun.astimezone():%Y-%m-%d %H:%M}{took}")
    lines.append("searched: " + "; ".join(f"{name} {domain}" for name, domain in found.searched.items()))
    lines.append(f"trials: {about.done} of {about.of} have ended")
    print_lines(where, [*lines, *found.summary])
    if not found.trials:
        return
    shown = found.trials[:MOST_SHOWN]
    goal = about.metric or "val_acc"
    first = [*dict.fromkeys(["trial", "outcome", f"best_{goal}", "best_val_acc", "best_epoch", "epochs"])]
    columns: list[tuple[str, Kind]] = [
        (name.removeprefix("best_"), "whole" if name == "outcome" else "number") for name in first
    ]
    searched = {name.rpartition(".")[2] for name in found.searched} | {"pair"}  # a choice's own: when.optimizer.sgd.lr
    names = [name for name in shown[0] if name not in first and name in searched]
    columns += [(name, "number") for name in names]
    rows = [[_cell(name, row[name]) for name in (*first, *names)] for row in shown]
    where.print()
    left_out = print_table(where, columns, rows, drop=True)
    more = [f"the best {len(shown)} of {len(found.trials)} trials"] if len(found.trials) > len(shown) else []
    more += [f"{words.counted(left_out, 'column')} left out here"] if left_out else []
    hints = [f"one trial:  {command('show', about.folder, str(shown[0]['trial']))}"]
    if about.best_val_acc is not None and (about.state != RUNNING or (about.folder / BEST).is_dir()):
        hints += [
            f"the best settings:  {command('export', about.folder, '--format', 'toml')}",
            f"the network, for other programs:  {command('export', about.folder, '--format', 'onnx')}",
        ]
    print_lines(where, [f"{'; '.join(more)} (all: {about.folder / 'trials.csv'})", *hints] if more else hints)


def _print_trial(found: ShownTrial) -> None:
    from tune_cropshield.commands.tables import Kind, console, print_lines, print_table
    from tune_cropshield.config.goals import goal_of
    from tune_cropshield.outcome import words

    where, best = console(), found.best
    lines = [f"{found.folder}: {found.ended}"]
    if best is not None:
        spread = words.over_parts(found.epochs)
        goal = goal_of(found.epochs)
        beside = "" if goal.is_accuracy else f", val_acc {words.accuracy(best['val_acc'])}"
        lines.append(f"best: {goal.named(goal.value(best))}{spread}{beside} in epoch {best['epoch']}")
    print_lines(where, lines)
    if found.parameters:
        print_table(where, [("parameter", "whole"), ("value", "name")], [*_spelled(found.parameters)])
    if found.epochs:
        wanted = dict.fromkeys(["part", goal_of(found.epochs).name, *METRICS])
        names = [name for name in wanted if name in found.epochs[0]]
        columns: list[tuple[str, Kind]] = [("epoch", "number"), ("", "whole"), *((name, "number") for name in names)]
        rows = [
            [
                line["epoch"],
                "best" if best is not None and line["epoch"] == best["epoch"] else "",
                *(_cell(name, line.get(name)) for name in names),
            ]
            for line in found.epochs
        ]
        where.print()
        if left_out := print_table(where, columns, rows, drop=True):
            print_lines(where, [f"{words.counted(left_out, 'column')} left out here: a wider terminal shows them"])
    where.print()
    print_lines(where, [f"{what}: {path}" for what, path in found.files.items()])
    if found.train_again is not None:
        print_lines(where, [f"train it again:  {found.train_again}"])


def _spelled(parameters: dict[str, Any]) -> Sequence[tuple[str, str]]:
    from tune_cropshield.outcome import words

    return [(name, words.setting(value)) for name, value in parameters.items()]


def _cell(name: str, value: Any) -> str:
    from tune_cropshield.config.goals import SHARES
    from tune_cropshield.outcome import words

    if name.removeprefix("best_") in SHARES:
        return words.accuracy(value)
    if name.startswith("best_") and isinstance(value, float):  # what the search goes by
        return f"{value:.4f}"
    return words.setting(value)
