"""The winner beside the reference setting."""

from __future__ import annotations

import math

from tune_cropshield.outcome.report import words
from tune_cropshield.outcome.report.page import Block, Chart, KeyFigure, Section, Table, Text
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.outcome.report.theme import BLUE, GREEN, UNFINISHED
from tune_cropshield.search.start_points import reference_differs

EXPLANATION = (
    "The reference setting is what the CropShield training guide recommends for this network; every search trains it "
    "to its end, as trial 0."
)
METRICS = {  # of the best epoch
    "val_acc": words.accuracy,
    "val_macro_f1": words.accuracy,
    "val_loss": words.number,
    "train_loss": words.number,
    "clip_rate": words.percent,
    "skipped_steps": words.setting,
    "images_per_s": words.number,
}


def gain_points(record: SearchRecord) -> float | None:
    """Returns by how many percentage points the winner is better than the reference setting.

    None where either has no result.
    """
    if record.winner is None or record.winner.accuracy is None or record.reference.accuracy is None:
        return None
    return 100 * (record.winner.accuracy - record.reference.accuracy)


def key_figures(record: SearchRecord) -> list[KeyFigure]:
    """Returns the numbers at the head of the report."""
    gain = gain_points(record)
    epochs = sum(len(trial.lines) for trial in record.trials)
    endings = {
        "finished": len(record.complete),
        "pruned": len(record.pruned),
        "failed": len(record.failed),
        "unfinished": len(record.unfinished),
    }
    return [
        KeyFigure(words.accuracy(record.winner.accuracy if record.winner is not None else None), "best val_acc"),
        KeyFigure(words.accuracy(record.reference.accuracy), "reference setting"),
        KeyFigure("–" if gain is None else f"{gain:+.1f}", "points gained"),
        KeyFigure(
            str(len(record.trials)),
            f"trials: {', '.join(f'{count} {name}' for name, count in endings.items() if count)}",
        ),
        KeyFigure(str(epochs), "epochs trained"),
    ]


def section(record: SearchRecord) -> Section:
    """Returns the comparison, the curves of both, and how far chance alone would carry."""
    title = "The winner and the reference setting"
    winner, reference = record.winner, record.reference
    if winner is None or winner.best is None:
        return Section("winner", title, [Text("No trial has a result yet, so there is no winner.", strong=True)])
    blocks: list[Block] = [Text(_verdict(record, winner), strong=True), Text(EXPLANATION)]
    if (chance := _chance(record, winner)) is not None:
        blocks.append(Text(chance))
    if record.space is not None and (differs := reference_differs(record.space)):
        named = ", ".join(
            f"{name} = {words.setting(taken)} for {words.setting(advised)}"
            for name, (advised, taken) in differs.items()
        )
        blocks.append(
            Text(f"The search space does not hold the whole reference setting; trial 0 takes the nearest: {named}.")
        )
    blocks += [_table(record, winner), _curves(winner, reference)]
    return Section("winner", title, blocks)


def _verdict(record: SearchRecord, winner: TrialRecord) -> str:
    reference, gain = record.reference, gain_points(record)
    assert winner.best is not None
    reached = f"Trial {winner.number} reached val_acc {winner.accuracy:.4f} in epoch {winner.best['epoch']}"
    if winner.outcome != "finished":
        reached += f" ({winner.outcome} after {words.counted(len(winner.lines), 'epoch')})"
    if winner.number == reference.number:
        return f"{reached}: it is trial 0, the reference setting, and no other trial was better."
    if gain is None:
        return f"{reached}. The reference setting (trial 0) has no result to compare it with: {reference.outcome}."
    how = ""
    if reference.outcome != "finished":
        how = f", {reference.outcome} after {words.counted(len(reference.lines), 'epoch')}"
    return (
        f"{reached}; the reference setting (trial 0{how}) reached {reference.accuracy:.4f}: a gain of {gain:.1f} "
        "points."
    )


def _chance(record: SearchRecord, winner: TrialRecord) -> str | None:
    """Returns how exact an accuracy on so many photographs is; None where their number was not kept."""
    count = record.starts[-1].get("val") if record.starts else None
    if not isinstance(count, int) or not count or winner.accuracy is None:
        return None
    spread = 196 * math.sqrt(winner.accuracy * (1 - winner.accuracy) / count)
    return (
        f"Accuracy is measured on {count} photographs: one of them is {100 / count:.1f} points, and with other "
        f"photographs it would differ by up to about {spread:.1f} points (95 %). The winner was also chosen as the "
        f"best of {len(record.with_result)} trials with one seed each, so its accuracy is probably too high: the "
        "confirm command trains it and the reference setting again with several seeds, and evaluate --split test "
        "measures it on photographs that no trial has used."
    )


def _table(record: SearchRecord, winner: TrialRecord) -> Table:
    reference = record.reference
    rows: list[tuple[str, ...]] = []
    highlighted = set()
    names = list(dict.fromkeys([*record.parameter_names, "effective_batch"]))
    for name in names:
        ours, theirs = (
            words.setting(trial.parameters.get(name, trial.setting(name) if name != "pair" else None))
            for trial in (winner, reference)
        )
        if ours != theirs:
            highlighted.add(len(rows))
        rows.append((name, ours, theirs))
    rows.append(("micro-batch x accumulation", _pair(winner), _pair(reference)))
    for name, shown in METRICS.items():
        rows.append(
            (name, *(shown(trial.best[name]) if trial.best is not None else "–" for trial in (winner, reference)))
        )
    rows.append(
        ("best epoch", *(str(trial.best["epoch"]) if trial.best is not None else "–" for trial in (winner, reference)))
    )
    rows.append(
        (
            "epochs trained",
            *(f"{len(trial.lines)}{' so far' if trial.outcome == UNFINISHED else ''}" for trial in (winner, reference)),
        )
    )
    header = ("setting or metric", f"winner (trial {winner.number})", "reference (trial 0)")
    caption = "Settings that differ stand out; metrics are those of each trial's best epoch"
    return Table(header, rows, caption, highlighted=frozenset(highlighted))


def _pair(trial: TrialRecord) -> str:
    return "–" if trial.pair is None else words.pair(trial.pair.micro_batch, trial.pair.accumulation)


def _curves(winner: TrialRecord, reference: TrialRecord) -> Chart:
    import plotly.graph_objects as go

    figure = go.Figure()
    shown = [
        (reference, "reference setting (trial 0)", BLUE, "dash"),
        (winner, f"winner (trial {winner.number})", GREEN, "solid"),
    ]
    for trial, name, color, dash in shown[1:] if winner.number == reference.number else shown:
        epochs, values = [line["epoch"] for line in trial.lines], [line["val_acc"] for line in trial.lines]
        figure.add_scatter(
            x=epochs,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": color, "dash": dash, "width": 2},
            marker={"size": 6},
        )
    figure.update_layout(xaxis_title="epoch", yaxis_title="val_acc", showlegend=True)
    alt = (
        f"Line chart of validation accuracy over epochs. Winner: best {words.accuracy(winner.accuracy)}; reference: "
        f"{words.accuracy(reference.accuracy)}."
    )
    return Chart(figure, "Validation accuracy of both", alt)
