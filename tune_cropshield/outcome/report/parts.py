"""Trials in parts, on folds or with several seeds: how far the parts of the best ones lie apart."""

from __future__ import annotations

from tune_cropshield.outcome import words
from tune_cropshield.outcome.report.page import Table
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.search.journal import PART_EPOCHS, best_first
from tune_cropshield.training.run_folder import best_of_parts, network_folder, spread_of_parts

MOST_SHOWN = 10  # trials


def sentences(record: SearchRecord, winner: TrialRecord) -> list[str]:
    """Returns what the winner's accuracy is the mean of, and which network is kept; none where trials have no parts."""
    if PART_EPOCHS not in record.study.user_attrs:
        return []
    of_parts = best_of_parts(winner.lines)
    goal = record.goal
    best = max(of_parts, key=goal.rank_of)
    return [
        f"Its {goal.called} is the mean over the {words.counted(len(of_parts), 'part')} that it finished, each with "
        "its own fold of photographs or its own seed. Trials that finished more parts are ranked before all others.",
        f"The network in best/ is that of its best part, {network_folder(winner.folder).name}: "
        f"{words.named_values(goal, best)} on the validation photographs of that part. As the best of the parts, "
        f"this is probably too {'high' if goal.is_accuracy else 'good'}; the mean is not.",
    ]


def tables(record: SearchRecord) -> list[Table]:
    """Returns the best trials with each part's accuracy, their mean and their spread; none where they have no parts."""
    if PART_EPOCHS not in record.study.user_attrs:
        return []
    goal = record.goal
    by_number = {trial.number: trial for trial in record.trials}
    shown = [by_number[trial.number] for trial in best_first(record.study)][:MOST_SHOWN]
    reference = record.reference
    if reference is not None and reference.best is not None and reference not in shown:
        shown.append(reference)
    most = max((len(best_of_parts(trial.lines)) for trial in shown), default=0)
    rows = []
    for trial in shown:
        values = [goal.text(goal.value(line)) for line in best_of_parts(trial.lines)]
        spread = spread_of_parts(trial.lines)
        name = f"trial {trial.number}" + (f" ({record.reference_name.split()[0]})" if trial is reference else "")
        rows.append(
            (
                name,
                *values,
                *["–"] * (most - len(values)),
                goal.text(trial.value),
                "–" if spread is None else f"{spread:.4f}",
            )
        )
    header = ("trial", *(f"part {part}" for part in range(most)), "mean", "spread")
    caption = f"Best {goal.name} of each part of the best trials, their mean, and their standard deviation"
    return [Table(header, rows, caption)]
