"""How a search ends: the winner is trained on, and the result looks at the test photographs, once."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tune_cropshield.api.evaluate import evaluate
from tune_cropshield.config.settings import RunConfig, load_config
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.units import describe_seconds, parse_duration
from tune_cropshield.data.split import TEST
from tune_cropshield.device import num_cores
from tune_cropshield.outcome import words
from tune_cropshield.outcome.evaluation import read_record
from tune_cropshield.outcome.ledger import spent_s
from tune_cropshield.outcome.one_answer import one_answer_line, pairs_in
from tune_cropshield.outcome.trained import BEST
from tune_cropshield.search.final import (
    FINAL,
    TIMES_AS_LONG,
    FinalTraining,
    delivered,
    epochs_to_expect,
    final_trainings,
    measured_epoch_s,
    next_folder,
    setting_of,
    train_final,
)
from tune_cropshield.search.journal import num_started
from tune_cropshield.search.stopping import obey_requests
from tune_cropshield.search.time_budget import TimeBudget
from tune_cropshield.training.run_folder import CONFIG

if TYPE_CHECKING:
    from tune_cropshield.search.context import Search
    from tune_cropshield.training.progress import TrialReport

TEST_S = 1.0  # the look at the test photographs, beside the report


@dataclass
class Finish:
    """What came of the end of a search: sentences for people, the same as plain values, the test accuracy."""

    lines: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=lambda: {FINAL: None, "test": None})
    test_acc: float | None = None


def time_budget(space: SearchSpace, folder: Path, began: float) -> TimeBudget | None:
    """Returns the time of the search in `folder`, what its earlier starts have taken counted; None where it has no end.

    began: this start, by time.monotonic.
    """
    if not space.search.time_budget:
        return None
    spent, searching = spent_s(folder)
    return TimeBudget(parse_duration(space.search.time_budget), began, spent, searching, space.search.finishes)


def too_short_to_search(search: Search) -> str | None:
    """Returns why a search with a final training does not begin with trials, None where it does."""
    budget, settings = search.budget, search.space.search
    if budget is None or not budget.finish or num_started(search.study):
        return None
    epoch_s = measured_epoch_s(search)
    if epoch_s is None:
        return None
    now, full_trial_s = time.monotonic(), epoch_s * settings.epochs
    if budget.is_worth_searching(full_trial_s, search.resources.concurrent_trials, now):
        return None
    return (
        "the time budget is too short for a search: a whole trial takes about "
        f"{describe_seconds(max(full_trial_s, 1))}, and only {describe_seconds(max(budget.trials_end - now, 0))} of "
        "it are for trials. A starting point is trained instead"
    )


def train_winner_on(search: Search, write_results: Callable[[], object]) -> Finish:
    """Trains the winner again, or continues the training that was interrupted, and says how it ended.

    Args:
        write_results: writes best/ and the report, as they are without it; how long that takes is kept free for the
            end.
    """
    finish, view = Finish(), search.view
    trainings, ends, began = final_trainings(search.folder), None, time.monotonic()
    write_results()
    now = time.monotonic()
    if search.budget is not None:
        ends = search.budget.ends - max(now - began + TEST_S, search.budget.ending_s)
    if trainings and trainings[-1].outcome is None:
        folder, number = trainings[-1].folder, trainings[-1].trial
        config = _begun(search, trainings[-1])
    else:
        folder, (config, number) = next_folder(search.folder), setting_of(search)
        if trainings and not _is_worth_another(search, trainings[-1], ends, now):
            return finish
        fitting, trained = epochs_to_expect(search, number, ends - now) if ends is not None else (0, 0)
        if ends is not None and (ends <= now or fitting < trained):
            finish.lines.append(
                f"no final training: about {fitting} epochs fit into the {describe_seconds(max(ends - now, 0))} left, "
                f"and the winner was trained for {trained} already. A longer --time-budget leaves more time"
            )
            return finish
        epochs = fitting or search.space.search.epochs * (TIMES_AS_LONG if ends is None else 1)
        config = config.model_copy(update={"trial": config.trial.of_length(epochs)})
    whose = f"trial {number}'s setting" if number is not None else "the first starting point"
    cores = words.counted(num_cores(), "core")
    length = words.counted(config.trial.epochs, "epoch") if ends is None else describe_seconds(max(ends - now, 0))
    view.note(f"final training: {whose}, for {length} on {cores}")
    final = _trained(search, folder, config, number, ends)
    finish.facts[FINAL] = {
        "dir": str(folder),
        "trial": number,
        "outcome": final.outcome,
        "epochs": len(final.lines),
        **_worth(final),
        "is_result": _is_result(search, final),
    }
    finish.lines.append(f"final training: {whose}, {_told(search, final)}")
    return finish


def _begun(search: Search, final: FinalTraining) -> RunConfig:
    """Returns the settings of a final training that is continued, with the photographs where they lie now."""
    config = load_config(final.folder / CONFIG)
    return config.model_copy(update={"data": config.data.at(search.space.data.places)})


def _is_worth_another(search: Search, last: FinalTraining, ends: float | None, now: float) -> bool:
    """Tells whether trials came after the last final training, or another one can be longer."""
    from tune_cropshield.training.fitted import trained_s

    more = num_started(search.study) > last.after_trials
    return more if ends is None else ends > now and (more or ends - now > trained_s(last.folder))


def _trained(search: Search, folder: Path, config: RunConfig, number: int | None, ends: float | None) -> FinalTraining:
    """Trains, shows how far it has come, and returns how it ended; interrupted, without an outcome."""
    from tune_cropshield.training.orderly_end import orderly_end

    with search.view.steps("epochs of the final training") as shown, orderly_end(search.view.note) as end:

        def report(done: TrialReport, planned: int) -> None:
            shown(done.metrics.epoch, planned)
            obey_requests(search)
            if done.finished:
                return
            if search.early_end.interrupted:
                raise KeyboardInterrupt
            end.epoch_ended(done.metrics.epoch_s)

        try:
            return train_final(search, folder, config, number, ends, report)
        except KeyboardInterrupt:
            search.early_end.interrupt()
            return final_trainings(search.folder)[-1]


def _worth(final: FinalTraining) -> dict[str, Any]:
    if final.best is None:
        return {"best_val_acc": None}
    return {"best_val_acc": final.best["val_acc"], f"best_{final.goal.name}": final.value}


def _is_result(search: Search, final: FinalTraining) -> bool:
    found = delivered(search.folder, search.study)
    return found is not None and found.folder == final.folder


def _told(search: Search, final: FinalTraining) -> str:
    if final.outcome is None:
        return f"interrupted after {words.counted(len(final.lines), 'epoch')}"
    if final.best is None:
        return f"{final.outcome} ({final.reason}); the winner of the trials stays the result"
    how = "" if not final.reason else f" ({final.reason})"
    return (
        f"{final.outcome} after {words.counted(len(final.lines), 'epoch')}{how}: "
        f"{words.named_values(final.goal, final.best)} in epoch {final.best['epoch']}; "
        + (
            "it is the result"
            if _is_result(search, final)
            else "no better than the winner of the trials, which stays the result"
        )
    )


def look_at_test_photographs(search: Search, finish: Finish) -> None:
    """Adds what the result in best/ is worth on the test photographs, which are read once for it."""
    if not len(search.data.split.test):
        finish.lines.append("there are no test photographs: the accuracy on new photographs is not known")
        return
    if (record := read_record(search.folder / BEST, "test")) is None:
        record = evaluate(search.folder / BEST, split="test").as_dict()
    finish.test_acc, finish.facts["test"] = (
        record["accuracy"],
        {name: record[name] for name in ("photographs", "right", "accuracy", "accuracy_interval")},
    )
    finish.lines.append(
        f"on {words.counted(record['photographs'], 'test photograph')}, which no training has used: "
        f"{words.tested(search.space.goal, record)}test_acc {words.accuracy(record['accuracy'])} (95 % interval "
        f"{words.share_interval(tuple(record['accuracy_interval']))})"
    )
    pairs = pairs_in([row["class"] for row in record["classes"]], record["confusion"])
    if (line := one_answer_line(pairs, TEST)) is not None:
        finish.lines.append(line)
