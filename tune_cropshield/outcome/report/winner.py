"""The winner beside the reference setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tune_cropshield.config.goals import Goal
from tune_cropshield.config.reference import REFERENCE_SETTING, is_recommended
from tune_cropshield.data.class_sizes import reached_by_the_largest
from tune_cropshield.data.split import VAL
from tune_cropshield.outcome import words
from tune_cropshield.outcome.against_reference import AgainstReference, against_reference
from tune_cropshield.outcome.one_answer import one_answer_line, pairs_of, sizes_of
from tune_cropshield.outcome.report import parts
from tune_cropshield.outcome.report.evidence import Evidence
from tune_cropshield.outcome.report.judgement import Judgement
from tune_cropshield.outcome.report.page import Block, Chart, KeyFigure, Section, Table, Text, whole_numbers
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.outcome.report.theme import BLUE, GREEN
from tune_cropshield.outcome.shares import OnSamePhotographs, interval
from tune_cropshield.search.endings import FINISHED, RUNNING, UNFINISHED
from tune_cropshield.search.start_points import reference_differs
from tune_cropshield.search.trial_settings import PAIR

TRIED = (
    "The search tries it as trial 0, and trains it to the end if that takes no more than a tenth of the search's "
    "epochs."
)
METRICS: dict[str, Callable[[Any], str]] = {  # of the best epoch
    "val_acc": words.accuracy,
    "val_macro_f1": words.accuracy,
    "val_balanced_acc": words.accuracy,
    "val_auc": words.accuracy,
    "val_loss": words.number,
    "train_loss": words.number,
    "clip_rate": words.percent,
    "skipped_steps": words.setting,
    "images_per_s": words.number,
}


def gained(record: SearchRecord) -> AgainstReference | None:
    """Returns what the winner gains on the reference setting, None where either has no result."""
    winner, reference = record.winner, record.reference
    if winner is None or reference is None:
        return None
    return against_reference(winner.lines, reference.lines, reference.outcome)


def key_figures(record: SearchRecord) -> list[KeyFigure]:
    """Returns the numbers at the head of the report."""
    gain, goal = gained(record), record.goal
    epochs = sum(len(trial.lines) for trial in record.trials)
    endings = {
        "finished": len(record.complete),
        "pruned": len(record.pruned),
        "failed": len(record.failed),
        RUNNING if record.running else UNFINISHED: len(record.unfinished),
    }
    compared: list[KeyFigure] = []
    if record.reference is not None:
        by = f" by epoch {gain.epoch}" if gain is not None and gain.epoch is not None else ""
        compared = [
            KeyFigure(goal.text(record.reference.value), f"{record.reference_name}{by}"),
            KeyFigure(
                "–" if gain is None else words.difference(goal, gain.gain),
                f"points gained{by}" if goal.is_share else f"better by{by}",
            ),
        ]
    winner = record.winner
    return [
        KeyFigure(goal.text(winner.value if winner is not None else None), f"best {goal.name}"),
        *([] if goal.is_accuracy or winner is None else [KeyFigure(words.accuracy(winner.accuracy), "its val_acc")]),
        *compared,
        KeyFigure(
            str(len(record.trials)),
            f"trials: {', '.join(f'{count} {name}' for name, count in endings.items() if count)}",
        ),
        KeyFigure(str(epochs), "epochs trained"),
    ]


def section(record: SearchRecord, evidence: Evidence) -> Section:
    """Returns the comparison, how sure it is, and the curves of both."""
    winner, reference = record.winner, record.reference
    title = f"The winner and the {record.reference_name}" if reference is not None else "The winner"
    if winner is None or winner.best is None:
        return Section("winner", title, [Text("No trial has a result yet, so there is no winner.", strong=True)])
    blocks: list[Block] = [Text(_result(record, winner), strong=True)]
    if isinstance(evidence.judgement, Judgement):
        blocks.append(Text(_beside_one_answer(evidence.judgement)))
    if reference is not None:
        blocks.append(Text(f"The {record.reference_name} is {_origin(record, reference)}. {TRIED}"))
    blocks += [Text(sentence) for sentence in _how_sure(record, winner, evidence)]
    if reference is not None and record.space is not None and (differs := reference_differs(record.space)):
        named = ", ".join(
            f"{name} = {words.setting(taken)} instead of {words.setting(advised)}"
            for name, (advised, taken) in differs.items()
        )
        blocks.append(
            Text(f"Part of the reference setting is not in the search space; trial 0 has the nearest values: {named}.")
        )
    blocks += [_table(record, winner), _curves(winner, reference, record.reference_name, record.goal)]
    blocks += parts.tables(record)
    if evidence.confirmed is not None:
        blocks.append(_confirmed_table(evidence.confirmed, record.goal))
    return Section("winner", title, blocks)


def _beside_one_answer(judgement: Judgement) -> str:
    """Returns what always naming the largest class would reach, and whether the network does much else."""
    pairs = pairs_of(judgement.rows)
    told = one_answer_line(pairs, VAL) or reached_by_the_largest(sizes_of(pairs), VAL)
    return f"{told[0].upper()}{told[1:]}."


def _origin(record: SearchRecord, reference: TrialRecord) -> str:
    """Returns where the reference setting comes from."""
    if record.space is not None and record.space.baseline is not None:
        return "what [baseline] in the search space says"
    if reference.config is not None and is_recommended(reference.config.trial):
        return "what the CropShield training guide recommends for this network"
    return "a usual setting for networks of this kind"


def _result(record: SearchRecord, winner: TrialRecord) -> str:
    reference, gain, goal = record.reference, gained(record), record.goal
    assert winner.best is not None
    reached = f"Trial {winner.number} reached {goal.named(winner.value)}"
    reached += words.over_parts(winner.lines) or f" in epoch {winner.best['epoch']}"
    if not goal.is_accuracy:
        reached += f", with val_acc {words.accuracy(winner.accuracy)}"
    if winner.outcome != "finished":
        reached += f" ({winner.outcome} after {words.counted(len(winner.lines), 'epoch')})"
    if reference is None:
        return f"{reached}."
    if winner.number == reference.number:
        return f"{reached}: it is trial 0, the {record.reference_name}, and no other trial was better."
    if gain is None:
        return (
            f"{reached}. The {record.reference_name} (trial 0) has no result to compare it with: {reference.outcome}."
        )
    size = words.better_by(goal, gain.gain)
    if gain.epoch is None:
        return (
            f"{reached}; the {record.reference_name} (trial 0) reached {goal.text(gain.reference)}: a gain of {size}."
        )
    return (
        f"{reached}. The {record.reference_name} (trial 0, {reference.outcome} after epoch {gain.epoch}) had reached "
        f"{goal.text(gain.reference)}, the winner {goal.text(gain.winner)} by the same epoch: a gain of "
        f"{size}."
    )


def _how_sure(record: SearchRecord, winner: TrialRecord, evidence: Evidence) -> list[str]:
    """Returns how exact the accuracy is, whether chance explains the gain, and what confirm and the test split say."""
    sentences, goal = parts.sentences(record, winner), record.goal
    in_parts = bool(sentences)
    count = None if in_parts else evidence.num_judged or (record.starts[-1].get("val") if record.starts else None)
    if isinstance(count, int) and count and winner.accuracy is not None:
        right = round(winner.accuracy * count)
        if not goal.is_accuracy:
            sentences += _goals_error(evidence, goal)
        sentences.append(
            f"The winner is right on {right} of {count} validation photographs; one photograph is "
            f"{words.one_in(count)} points. From this number of photographs, its accuracy on others of the same kind "
            f"can be estimated as {words.share_interval(interval(right, count))} (95 % Wilson interval)."
        )
    reference = record.reference.number if record.reference is not None else None
    if evidence.side_by_side is not None and winner.number != reference:
        sentences.append(_side_by_side(evidence.side_by_side, record.reference_name))
    if evidence.lead is not None and (in_parts or evidence.lead.runner_up != reference):
        sentences.append(f"{evidence.lead.sentence.capitalize()}.")
    too = "high" if goal.higher_is_better else "good"
    if len(record.with_result) > 1:
        each = "" if in_parts else " with one seed each"
        sentences.append(
            "The winner and its epoch were chosen with these same photographs, as the best of "
            f"{len(record.with_result)} trials{each}, so its {goal.called}"
            f"{' and its gain are' if reference is not None else ' is'} probably too {too}."
        )
    elif len(winner.lines) > 1:
        sentences.append(
            f"Its epoch was chosen with these same photographs, so its {goal.called} is probably too {too}."
        )
    if reference is not None:
        sentences.append(_confirmed(winner, evidence.confirmed, record.reference_name))
    return [*sentences, _tested(evidence.tested, record)]


def _goals_error(evidence: Evidence, goal: Goal) -> list[str]:
    """Returns how exact the winner's value of another goal than the accuracy is, where its predictions tell."""
    ends = evidence.goal_interval
    if ends is None:
        return [f"How exact its {goal.name} is cannot be told from what is kept of its predictions."]
    low, high = ends
    return [
        f"From this number of photographs, its {goal.name} on others of the same kind can be estimated as {low:.3f} to "
        f"{high:.3f} (95 % interval, bootstrap over the validation photographs)."
    ]


def _side_by_side(found: OnSamePhotographs, name: str) -> str:
    if not found.only_first + found.only_second:
        return f"Both classify the same ones of the {found.count} photographs correctly."
    return (
        f"Of the same {found.count} photographs, only the winner gets {found.only_first} right, and only the {name} "
        f"{found.only_second}. If both were equally good, a difference as large as this would occur by chance "
        f"with {words.p_equals(found.p_value)} (McNemar's exact test)."
    )


def _confirmed(winner: TrialRecord, confirmed: dict[str, Any] | None, name: str) -> str:
    if confirmed is None:
        return (
            "Whether the gain holds with other random seeds is not known yet: the command confirm, at the end of this "
            f"page, trains the winner and the {name} again with several seeds."
        )
    seeds, conditions = words.counted(len(confirmed["seeds"]), "seed"), confirmed.get("conditions")
    where = f" on {conditions['device']}, {conditions['threads']} threads" if conditions is not None else ""
    text = f"Trained again with {seeds}{where} (confirm): {confirmed['conclusion']}"
    if winner.number not in [winner_of["trial"] for winner_of in confirmed["candidates"]]:
        text += f" Trial {winner.number} was not among them, because it became the winner later. Run confirm again."
    return text


def _tested(tested: dict[str, Any] | None, record: SearchRecord) -> str:
    if tested is None:
        return (
            "It was not evaluated yet on the test photographs, which no trial has used: a command at the end of this "
            "page does it, once."
        )
    right, count = tested["right"], tested["photographs"]
    drop = tested["accuracy"] - (record.result_accuracy or 0.0)
    what = "it is" if record.final is None else "the network of the final training is"
    gone = tested["expected"] - count
    missing = f" ({gone} of its {tested['expected']} were missing)" if gone else ""
    return (
        f"On the test photographs, which no trial has used, {what} right on {right} of {count} photographs{missing}: "
        f"{words.tested(record.goal, tested)}test_acc {words.accuracy(tested['accuracy'])}, 95 % interval "
        f"{words.share_interval(interval(right, count))}, "
        f"{words.points(drop)} points compared with val_acc."
    )


def _confirmed_table(confirmed: dict[str, Any], goal: Goal) -> Table:
    rows, name = [], confirmed.get("compared_with", REFERENCE_SETTING).removeprefix("the ")
    for each in (confirmed["reference"], *confirmed["candidates"]):
        found = each["against_reference"]
        rows.append(
            (
                f"trial {each['trial']}" + (f" ({name.split()[0]})" if each is confirmed["reference"] else ""),
                str(sum(run["outcome"] == FINISHED for run in each["runs"])),
                words.accuracy(each["mean"]) if goal.is_share else words.number(each["mean"], 4),
                words.number(each["spread"], 2),
                words.difference(goal, found["gain"]) if found is not None else "–",
                f"{words.difference(goal, found['low'])} to {words.difference(goal, found['high'])}"
                if found is not None
                else "–",
                words.p_value(each["p_value"]),
            )
        )
    header = ("trial", "seeds", f"mean {goal.name}", "spread", "gain", "95 % interval", "p")
    unit = " in points" if goal.is_share else ""
    caption = f"Confirmed with other seeds: gains over the {name}{unit}; {confirmed['test']}"
    return Table(header, rows, caption)


def _table(record: SearchRecord, winner: TrialRecord) -> Table:
    shown = [winner] if record.reference is None else [winner, record.reference]
    rows: list[tuple[str, ...]] = []
    highlighted = set()
    names = list(dict.fromkeys([*record.parameter_names, "effective_batch"]))
    of_some = {PAIR} | ({*record.space.domains()} - {*record.space.space} if record.space is not None else set())
    for name in names:
        values = [
            words.setting(trial.parameters.get(name, trial.setting(name) if name not in of_some else None))
            for trial in shown
        ]
        if len(set(values)) > 1:
            highlighted.add(len(rows))
        rows.append((name, *values))
    rows.append(("micro-batch x accumulation", *map(_pair, shown)))
    own = {} if record.goal.name in METRICS else {record.goal.name: record.goal.text}
    for name, said in (own | METRICS).items():
        rows.append((name, *(said(trial.best.get(name)) if trial.best is not None else "–" for trial in shown)))
    rows.append(("best epoch", *(str(trial.best["epoch"]) if trial.best is not None else "–" for trial in shown)))
    rows.append(
        (
            "epochs trained",
            *(f"{len(trial.lines)}{' so far' if trial.outcome in (RUNNING, UNFINISHED) else ''}" for trial in shown),
        )
    )
    header = (
        "setting or metric",
        *(f"winner (trial {winner.number})", f"{record.reference_name.split()[0]} (trial 0)")[: len(shown)],
    )
    caption = "Metrics are those of the best epoch"
    if len(shown) > 1:
        caption = "Settings that differ are highlighted; metrics are those of each trial's best epoch"
    return Table(header, rows, caption, highlighted=frozenset(highlighted))


def _pair(trial: TrialRecord) -> str:
    return "–" if trial.pair is None else words.pair(trial.pair.micro_batch, trial.pair.accumulation)


def _curves(winner: TrialRecord, reference: TrialRecord | None, name: str, goal: Goal) -> Chart:
    import plotly.graph_objects as go

    figure = go.Figure()
    shown = [(winner, f"winner (trial {winner.number})", GREEN, "solid")]
    if reference is not None and reference.number != winner.number:
        shown.insert(0, (reference, f"{name} (trial 0)", BLUE, "dash"))
    for trial, name, color, dash in shown:
        epochs, values = [line["epoch"] for line in trial.lines], [goal.value(line) for line in trial.lines]
        figure.add_scatter(
            x=epochs,
            y=values,
            name=name,
            mode="lines+markers",
            line={"color": color, "dash": dash, "width": 2},
            marker={"size": 6},
        )
    figure.update_layout(xaxis_title="epoch", yaxis_title=goal.name, showlegend=True)
    whole_numbers(figure, max(line["epoch"] for trial, *_ in shown for line in trial.lines))
    called = "validation accuracy" if goal.is_accuracy else goal.name
    title = called[0].upper() + called[1:] if goal.is_accuracy else called
    alt = f"Line chart of {called} over epochs. Winner: best {goal.text(winner.value)}"
    if reference is None:
        return Chart(figure, title, f"{alt}.")
    alt += f"; {name.split()[0]}: {goal.text(reference.value)}."
    return Chart(figure, f"{title} of both", alt)
