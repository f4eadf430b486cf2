"""The time section: where the trials' time went, and what pruning saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tune_cropshield.outcome import words
from tune_cropshield.outcome.ledger import IDLE, NAMES, read_ledger
from tune_cropshield.outcome.report.page import Block, Chart, Section, Table, Text, whole_numbers
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.outcome.report.theme import AMBER, BLUE, GREEN, GREY, INK, MUTED, RED

COLORS = (GREEN, AMBER, BLUE, GREY, RED, INK, MUTED)
TRAINING, WAITING, OUTSIDE = (
    "training and evaluation",
    "waiting for images",
    "start-up, checkpoints and waiting for other trials",
)


def section(record: SearchRecord) -> Section:
    """Returns the shares of the time, the epochs that pruning saved, and the slowest trials."""
    title = "Time"
    if not record.with_result:
        return Section("time", title, [Text("No trial has finished an epoch.")])
    ledger = None if record.running else ledger_shares(record.folder)  # while it runs, there is that of earlier starts
    shares = ledger or time_shares(record)
    blocks: list[Block] = [
        Text(_saved(record), strong=True),
        Text(_waited(record)),
        _shares_chart(shares),
        _table(shares),
        _trials_chart(record),
    ]
    return Section("time", title, blocks)


def ledger_shares(search_dir: Path) -> dict[str, float] | None:
    """Returns {what the time went into: seconds} for all starts of the search, the time without a trial included.

    None where no ledger was kept.
    """
    kept = read_ledger(search_dir)
    if kept is None:
        return None
    whole = kept["whole"]
    return {
        **{NAMES.get(part, part): seconds for part, seconds in whole["parts"].items()},
        IDLE: max(whole["idle_s"], 0.0),
    }


def time_shares(record: SearchRecord) -> dict[str, float]:
    """Returns {what the time went into: seconds}, summed over all trials.

    Epochs and waits are those of metrics.jsonl. What is outside of epochs is known only for trials that ran without a
    break: the rest of the time between their start and their end in the study.
    """
    epochs, waits = _summed(record, "epoch_s"), _summed(record, "data_wait_s")
    shares = {TRAINING: max(epochs - waits, 0.0), WAITING: waits}
    outside = sum(max(_duration(trial) - sum(line["epoch_s"] for line in trial.lines), 0.0) for trial in record.trials)
    return {**shares, OUTSIDE: outside} if len(record.starts) < 2 else shares


def _summed(record: SearchRecord, metric: str) -> float:
    return float(sum(line[metric] for trial in record.trials for line in trial.lines))


def _duration(trial: TrialRecord) -> float:
    started, ended = trial.frozen.datetime_start, trial.frozen.datetime_complete
    return (ended - started).total_seconds() if started is not None and ended is not None else 0.0


def epochs_saved(record: SearchRecord) -> tuple[int, float]:
    """Returns how many epochs were not trained because trials were pruned, and their seconds.

    The seconds are counted at those trials' own pace.
    """
    epochs, seconds = 0, 0.0
    parts = record.space.search.num_parts if record.space is not None else 1
    for trial in record.pruned:
        if trial.config is not None and trial.lines:
            saved = max(trial.config.trial.epochs * parts - len(trial.lines), 0)
            epochs += saved
            seconds += saved * sum(line["epoch_s"] for line in trial.lines) / len(trial.lines)
    return epochs, seconds


def _saved(record: SearchRecord) -> str:
    trained = sum(len(trial.lines) for trial in record.trials)
    epochs, seconds = epochs_saved(record)
    text = f"{words.counted(trained, 'epoch')} {'was' if trained == 1 else 'were'} trained."
    if not epochs:
        return f"{text} Pruning saved no epochs."
    return (
        f"{text} Pruning saved {epochs} more, {words.percent(epochs / (epochs + trained))} of the epochs of a search "
        f"without it: about {words.seconds(seconds)} of training."
    )


def _waited(record: SearchRecord) -> str:
    epochs = _summed(record, "epoch_s")
    share = _summed(record, "data_wait_s") / epochs if epochs else 0.0
    text = f"Inside epochs, {words.percent(share)} of the time was spent waiting for images"
    return (
        f"{text}: loading images, not the network, limited the speed."
        if share > 0.2
        else f"{text}: loading images did not slow training down."
    )


def _shares_chart(shares: Mapping[str, float]) -> Chart:
    import plotly.graph_objects as go

    total = sum(shares.values()) or 1.0
    figure = go.Figure()
    for (name, seconds), color in zip(shares.items(), COLORS, strict=False):
        share = words.percent(seconds / total)
        hover = f"{name}: {words.seconds(seconds)} ({share})<extra></extra>"
        figure.add_bar(
            y=[""], x=[seconds], name=f"{name} ({share})", orientation="h", marker={"color": color}, hovertemplate=hover
        )
    figure.update_layout(
        barmode="stack", xaxis_title="seconds of all trials together", showlegend=True, legend={"traceorder": "normal"}
    )
    named = ", ".join(f"{name} {words.seconds(seconds)}" for name, seconds in shares.items())
    return Chart(figure, "Where the time went", f"Stacked bar of the time of all trials: {named}.", height=210)


def _trials_chart(record: SearchRecord) -> Chart:
    import plotly.graph_objects as go

    trials = record.with_result
    means = [sum(line["epoch_s"] for line in trial.lines) / len(trial.lines) for trial in trials]
    waits = [sum(line["data_wait_s"] for line in trial.lines) / len(trial.lines) for trial in trials]
    x = [trial.number for trial in trials]
    figure = go.Figure()
    figure.add_bar(
        x=x,
        y=[mean - wait for mean, wait in zip(means, waits, strict=True)],
        name="training and evaluation",
        marker={"color": GREEN},
    )
    figure.add_bar(x=x, y=waits, name="waiting for images", marker={"color": AMBER})
    figure.update_layout(barmode="stack", xaxis_title="trial", yaxis_title="seconds per epoch", showlegend=True)
    whole_numbers(figure, x[-1])
    alt = (
        f"Stacked bars of each trial's seconds per epoch, from {words.number(min(means))} to "
        f"{words.number(max(means))}."
    )
    return Chart(figure, "Seconds per epoch of each trial", alt, height=260, wide=True)


def _table(shares: Mapping[str, float]) -> Table:
    total = sum(shares.values()) or 1.0
    rows: Sequence[Sequence[str]] = [
        (name, words.seconds(seconds), words.percent(seconds / total)) for name, seconds in shares.items()
    ]
    return Table(("the time of all trials", "time", "share"), rows, "Trials that run in parallel each count in full")
