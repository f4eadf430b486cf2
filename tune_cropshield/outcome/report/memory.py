"""The memory section: what was predicted, what was measured, what trials really took; and how fast each pair was."""

from __future__ import annotations

import statistics
from collections import defaultdict

from tune_cropshield.memory.choose.pairs import Figures, Pair, Plan
from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.page import Block, Chart, Section, Table, Text
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.outcome.report.theme import AMBER, BLUE, GREEN, RED


def section(record: SearchRecord) -> Section:
    """Returns the pairs with their memory and speed; on a CPU only their speed."""
    title = "Memory and speed by batch size"
    used: dict[Pair, list[TrialRecord]] = defaultdict(list)
    for trial in record.with_result:
        if trial.pair is not None:
            used[trial.pair].append(trial)
    plan = record.plan
    if plan is None and not used:
        return Section("memory", title, [Text("There is no memory plan, and no trial has a result.")])
    planned = _planned(record) if plan is not None and plan.share_mib is not None else set()
    pairs = sorted({*used, *planned}, key=lambda pair: (pair.effective_batch, -pair.micro_batch))
    blocks: list[Block] = [Text(_summary(record, used), strong=True)]
    on_gpu = any(_peak_mib(trials) for trials in used.values()) or (plan is not None and plan.share_mib is not None)
    if retries := sum(event.get("event") == "out of memory" for trial in record.trials for event in trial.events):
        blocks.append(
            Text(
                f"Memory ran out {words.counted(retries, 'time')}. Each time the update was repeated with half the "
                "micro-batch and twice the accumulation, so that the effective batch stayed the same."
            )
        )
    if on_gpu:
        blocks.append(_memory_chart(record, pairs, used))
    if used:
        blocks.append(_speed_chart(used))
    blocks.append(_table(record, pairs, used))
    return Section("memory", title, blocks)


def _summary(record: SearchRecord, used: dict[Pair, list[TrialRecord]]) -> str:
    plan = record.plan
    peak = max((_peak_mib(trials) for trials in used.values()), default=0.0)
    if plan is None:
        return "This search has no memory plan; the table shows what its trials used."
    if plan.share_mib is None:
        return (
            "This search ran on a CPU: batch sizes were chosen for their speed alone, not to fit into a GPU's memory."
        )
    share = (
        f"Each trial may reserve {words.mib(plan.share_mib)} of GPU memory, in addition to "
        f"{words.mib(plan.context_mib)} for the CUDA driver"
    )
    source = {"probe": "measured before the search", "estimate": "estimated"}.get(plan.source, plan.source)
    if not peak:
        return f"{share}; the memory for each batch size was {source}."
    return (
        f"{share}; the memory for each batch size was {source}. The most that a trial reserved is {words.mib(peak)}, "
        f"{words.percent(peak / plan.share_mib)} of its share."
    )


def _peak_mib(trials: list[TrialRecord]) -> float:
    return max((line["peak_vram_mib"] for trial in trials for line in trial.lines), default=0.0)


def _plans(record: SearchRecord) -> list[Plan]:
    """Returns the plans of all networks and sizes of a search."""
    if record.plan is None:
        return []
    return [plan for _, plan in record.plan.families] or [record.plan]


def _planned(record: SearchRecord) -> set[Pair]:
    return {pair for plan in _plans(record) for pair in plan.figures}


def _figures(record: SearchRecord, pair: Pair) -> Figures:
    """Returns the figures of a pair, of the network and size that takes the most with it where there are several."""
    found = [plan.figures[pair] for plan in _plans(record) if pair in plan.figures]
    return max(found, key=lambda figures: figures.reserved_mib or 0.0, default=Figures())


def _label(pair: Pair) -> str:
    return words.pair(pair.micro_batch, pair.accumulation)


def _memory_chart(record: SearchRecord, pairs: list[Pair], used: dict[Pair, list[TrialRecord]]) -> Chart:
    import plotly.graph_objects as go

    labels = [_label(pair) for pair in pairs]
    series = {
        "predicted": ([_figures(record, pair).predicted_reserved_mib for pair in pairs], BLUE, "diamond-open"),
        "measured for the plan": (
            [_figures(record, pair).measured_reserved_mib for pair in pairs],
            AMBER,
            "square-open",
        ),
        "reserved by trials": ([_peak_mib(used[pair]) if pair in used else None for pair in pairs], GREEN, "circle"),
    }
    figure = go.Figure()
    for name, (values, color, symbol) in series.items():
        if any(values):
            figure.add_scatter(
                x=labels, y=values, name=name, mode="markers", marker={"color": color, "symbol": symbol, "size": 10}
            )
    share = record.plan.share_mib if record.plan is not None else None
    if share is not None:
        figure.add_hline(share, line={"color": RED, "dash": "dash", "width": 1.5})
    figure.update_xaxes(
        title="micro-batch x accumulation", type="category", categoryorder="array", categoryarray=labels
    )
    figure.update_yaxes(title="MiB", rangemode="tozero")
    figure.update_layout(showlegend=True)
    alt = (
        "Chart of peak reserved memory by batch size: predicted, measured for the plan, and reserved by the search's "
        "trials. The table holds the numbers."
    )
    return Chart(
        figure,
        "Peak memory by batch size",
        alt,
        "The dashed line is a trial's share of the budget." if share is not None else "",
    )


def _speed_chart(used: dict[Pair, list[TrialRecord]]) -> Chart:
    import plotly.graph_objects as go

    pairs = sorted(used, key=lambda pair: (pair.effective_batch, -pair.micro_batch))
    speeds = [_images_per_s(used[pair]) for pair in pairs]
    figure = go.Figure(go.Bar(x=[_label(pair) for pair in pairs], y=speeds, marker={"color": GREEN}, name="images/s"))
    figure.update_layout(bargap=0.5)
    figure.update_xaxes(title="micro-batch x accumulation", type="category")
    figure.update_yaxes(title="training images/s")
    named = ", ".join(f"{_label(pair)}: {words.number(speed)}" for pair, speed in zip(pairs, speeds, strict=True))
    caption = "Median over the epochs of all trials with these sizes."
    alt = f"Bar chart of training images per second by batch size: {named}."
    return Chart(figure, "Speed by batch size", alt, caption)


def _images_per_s(trials: list[TrialRecord]) -> float:
    return float(statistics.median(line["images_per_s"] for trial in trials for line in trial.lines))


def _table(record: SearchRecord, pairs: list[Pair], used: dict[Pair, list[TrialRecord]]) -> Table:
    share = record.plan.share_mib if record.plan is not None else None
    rows = []
    for pair in pairs:
        figures, trials = _figures(record, pair), used.get(pair, [])
        peak = _peak_mib(trials) or None
        taken = peak or figures.reserved_mib
        rows.append(
            (
                str(pair.effective_batch),
                _label(pair),
                str(len(trials)),
                words.mib(figures.predicted_reserved_mib),
                words.mib(figures.measured_reserved_mib),
                words.mib(peak),
                words.percent(taken / share if share and taken is not None else None),
                words.number(figures.images_per_s),
                words.number(_images_per_s(trials) if trials else None),
            )
        )
    header = (
        "effective batch",
        "micro-batch x accumulation",
        "trials",
        "predicted",
        "measured",
        "used by trials",
        "of a trial's share",
        "planned images/s",
        "trials' images/s",
    )
    known = [column for column in range(len(header)) if any(row[column] != words.number(None) for row in rows)]
    caption = (
        "The largest amount of memory held at once, and the training speed; a dash where nothing was predicted, "
        "measured or tried"
    )
    if len(known) < len(header):
        caption = "Training speed; a dash where no trial had these sizes"
    return Table(
        [header[column] for column in known],
        [[row[column] for column in known] for row in rows],
        caption,
        text_columns=2,
    )
