"""What the study is told, on its own: no Ray runtime, nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from begun_search import Photographs, begun, prepared
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from small_disks import fill, mounted

from tune_cropshield.config.space_file import load_space
from tune_cropshield.errors import DiskFull
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.endings import METRIC, OUTCOME, complete_endings, end_stopped, stop_trial
from tune_cropshield.search.folder import drop_losers, equal_weights, trial_rows, write_table
from tune_cropshield.search.journal import is_stopped, open_study, read_study, reference_trial, unfinished
from tune_cropshield.search.prepare import Prepared
from tune_cropshield.search.searched import searched_in
from tune_cropshield.search.searcher import StudySearcher
from tune_cropshield.search.trial_settings import EFFECTIVE_BATCH, distributions, pair_of


@pytest.fixture
def found(drawn_leaves: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """What the searches below run on: 3 trials of `lr` and `weight_decay`."""
    return prepared(Photographs(drawn_leaves, shared_cache), tmp_path_factory.mktemp("space") / "space.toml")


def searcher(found: Prepared, folder: Path, num_trials: int = 3) -> StudySearcher:
    """The searcher of a search that is begun or continued in `folder`, as after a kill."""
    settings = found.space.search.model_copy(update={"trials": num_trials})
    return StudySearcher(begun(replace(found, space=found.space.model_copy(update={"search": settings})), folder))


def result(epoch: int, value: float | None, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, METRIC: value, **more}


def test_pruned_finished_and_failed_trials_are_told_as_such(found: Prepared, tmp_path: Path) -> None:
    search = begun(found, tmp_path)
    told = StudySearcher(search)
    for trial_id in ("a", "b", "c"):
        told.suggest(trial_id)
        told.on_trial_result(trial_id, result(1, 0.5))
    assert told.suggest("d") is None  # none is left, but of those under way one may have to be started again
    told.on_trial_complete("a", result(2, 0.7, outcome="finished"))
    search.pruned.add(1)
    told.on_trial_complete("b", result(2, 0.6))
    told.note_worker_error("c", "ValueError: no")
    told.on_trial_complete("c", None, error=True)
    assert not told.starts_again("c")
    assert told.suggest("d") == "FINISHED"
    trials = read_study(tmp_path).trials
    # One that was stopped runs on to Optuna: the search may go on with it as long as it lasts.
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAIL]
    assert [is_stopped(trial) for trial in trials] == [False, True, False]
    assert [row["state"] for row in trial_rows(tmp_path, search.study)] == ["COMPLETE", "PRUNED", "FAIL"]
    assert [row["outcome"] for row in trial_rows(tmp_path, search.study)] == ["finished", "pruned", "failed"]
    assert not unfinished(search.study)
    end_stopped(search.study)
    trials = read_study(tmp_path).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    assert [trial.value for trial in trials] == [0.7, 0.6, None]
    assert [trial.intermediate_values for trial in trials] == [{1: 0.5, 2: 0.7}, {1: 0.5, 2: 0.6}, {1: 0.5}]
    assert trials[2].user_attrs["reason"] == "its worker process died: ValueError: no"


def test_a_trial_whose_worker_dies_before_its_first_result_is_started_again_once(
    found: Prepared, tmp_path: Path
) -> None:
    search = searcher(found, tmp_path, num_trials=1)
    study = search._study
    started = search.suggest("a")
    search.on_trial_complete("a", None, error=True)
    assert search.starts_again("a")
    assert study.trials[0].state == TrialState.RUNNING
    assert isinstance(started, dict) and started["number"] == 0
    assert search.suggest("b") == started
    search.on_trial_complete("b", None, error=True)
    assert not search.starts_again("b")
    assert search.suggest("c") == "FINISHED"
    assert (study.trials[0].state, study.trials[0].user_attrs["reason"]) == (TrialState.FAIL, "its worker process died")


def test_an_epoch_trained_again_to_another_value_counts_with_the_value_of_which_there_are_weights(
    found: Prepared,
    tmp_path: Path,
) -> None:
    killed = searcher(found, tmp_path)
    killed.suggest("a")
    killed.on_trial_result("a", result(1, 0.5))
    killed.on_trial_result("a", result(2, 0.9))

    search = searcher(found, tmp_path, num_trials=1)  # as after a kill before the second epoch's checkpoint
    search.suggest("a")
    search.on_trial_result("a", result(1, 0.5))
    search.on_trial_result("a", result(2, 0.6))
    assert read_study(tmp_path).trials[0].intermediate_values == {1: 0.5, 2: 0.6}
    search.on_trial_complete("a", result(3, 0.7, outcome="finished"))
    [trial] = read_study(tmp_path).trials
    assert (trial.value, trial.intermediate_values) == (0.7, {1: 0.5, 2: 0.6, 3: 0.7})


@pytest.mark.parametrize(("outcome", "state"), [("finished", TrialState.COMPLETE), ("diverged", TrialState.PRUNED)])
def test_an_accuracy_that_a_killed_run_reached_and_this_one_did_not_is_forgotten(
    outcome: str, state: TrialState, found: Prepared, tmp_path: Path
) -> None:
    killed = searcher(found, tmp_path)
    killed.suggest("a")
    for epoch, value in ((1, 0.5), (2, 0.6), (3, 0.9)):
        killed.on_trial_result("a", result(epoch, value))

    search = searcher(found, tmp_path, num_trials=1)
    search.suggest("a")
    search.on_trial_result("a", result(1, 0.5))
    search.on_trial_result("a", result(2, 0.55))
    last = result(2, 0.55, outcome=outcome) if outcome == "finished" else {"epoch": 3, "outcome": outcome}
    search.on_trial_complete("a", last)
    [trial] = read_study(tmp_path).trials
    assert (trial.state, trial.value, trial.intermediate_values) == (state, 0.55, {1: 0.5, 2: 0.55, 3: 0.55})


@pytest.mark.parametrize("value", [None, float("nan")])
def test_an_accuracy_that_is_none_or_nan_is_no_result(value: float | None, found: Prepared, tmp_path: Path) -> None:
    search = searcher(found, tmp_path)
    search.suggest("a")
    search.on_trial_result("a", result(1, value))
    search.on_trial_complete("a", result(2, value, outcome="finished"))
    [trial] = read_study(tmp_path).trials
    assert (trial.state, trial.intermediate_values, trial.user_attrs["reason"]) == (
        TrialState.FAIL,
        {},
        "it reported no accuracy",
    )


def test_a_trial_that_says_it_finished_without_an_accuracy_has_failed_and_keeps_what_it_had_reported(
    found: Prepared,
    tmp_path: Path,
) -> None:
    search = searcher(found, tmp_path)
    search.suggest("a")
    search.on_trial_result("a", result(1, 0.5))
    search.on_trial_complete("a", result(2, None, outcome="finished"))
    [trial] = read_study(tmp_path).trials
    assert (trial.state, trial.intermediate_values, trial.user_attrs["reason"]) == (
        TrialState.FAIL,
        {1: 0.5},
        "it reported no accuracy",
    )


def test_a_resumed_search_draws_from_the_batches_it_was_begun_with_whatever_fits_by_now(tmp_path: Path) -> None:
    space = load_space(Path(__file__).parents[2] / "search_spaces" / "demo.toml", {})
    begun, now = plan_for_cpu((16, 32, 64)), plan_for_cpu((16, 32))
    study = open_study(tmp_path)
    study.ask(distributions(space, begun))
    found = searched_in(space, now).begun(study).of({}).kept
    assert found[EFFECTIVE_BATCH] == CategoricalDistribution((16, 32, 64))
    assert study.ask(dict(found)).params[EFFECTIVE_BATCH] in (16, 32, 64)
    assert (
        str(pair_of({EFFECTIVE_BATCH: 64}, space, now)) == "16x4"
    )  # the smallest micro-batch, where no pair is known to fit
    assert str(pair_of({EFFECTIVE_BATCH: 32}, space, now)) == "32x1"


@pytest.mark.parametrize("baseline", [True, False])
def test_a_search_without_a_baseline_notes_it_in_its_study(baseline: bool, found: Prepared, tmp_path: Path) -> None:
    settings = found.space.search.model_copy(update={"baseline": baseline})
    search = begun(replace(found, space=found.space.model_copy(update={"search": settings})), tmp_path)
    StudySearcher(search).suggest("a")
    first = search.study.trials[0]
    assert (reference_trial(read_study(tmp_path)) is not None) is baseline
    assert (first.params == {"lr": 1e-4, "weight_decay": 1e-4}) is baseline


def test_an_interrupted_trial_stays_unfinished(found: Prepared, tmp_path: Path) -> None:
    search = searcher(found, tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", result(1, 0.5))
    assert [trial.number for trial in unfinished(read_study(tmp_path))] == [0]


def journal_lines(folder: Path) -> list[bytes]:
    return (folder / "study.journal").read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    ("outcome", "state"),
    [("finished", TrialState.COMPLETE), ("diverged", TrialState.PRUNED), ("failed", TrialState.FAIL)],
)
def test_a_kill_at_any_line_of_an_ending_leaves_the_trial_as_it_was_or_ended_the_same_way(
    outcome: str, state: TrialState, found: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    search = searcher(found, tmp_path / "whole")
    search.suggest("a")
    search.on_trial_result("a", result(1, 0.5))
    begun = len(journal_lines(tmp_path / "whole"))
    search.on_trial_complete("a", result(2, 0.6, outcome=outcome))
    lines = journal_lines(tmp_path / "whole")
    assert len(lines) >= begun + 4
    for kept in range(begun, len(lines) + 1):
        killed = tmp_path / f"killed-{kept}"
        killed.mkdir()
        (killed / "study.journal").write_bytes(b"".join(lines[:kept]) + b'{"op_code":')
        again = open_study(killed)
        complete_endings(again, lambda number: {1: 0.5, 2: 0.6})
        (trial,) = again.trials
        if kept == begun:  # nothing of the end was written: it will be judged again
            assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {1: 0.5})
        else:
            assert (trial.state, trial.intermediate_values) == (state, {1: 0.5, 2: 0.6})


def test_a_kill_at_any_line_of_a_stop_or_of_what_ends_it_leaves_the_trial_as_it_was_stopped_or_pruned(
    found: Prepared, tmp_path: Path
) -> None:
    (tmp_path / "whole").mkdir()
    search = searcher(found, tmp_path / "whole")
    search.suggest("a")
    search.on_trial_result("a", result(1, 0.5))
    begun = len(journal_lines(tmp_path / "whole"))
    search.on_trial_complete("a", result(2, 0.6, outcome="pruned"))
    is_there = len(journal_lines(tmp_path / "whole"))
    end_stopped(search._study)
    lines = journal_lines(tmp_path / "whole")
    assert is_there >= begun + 2 and len(lines) >= is_there + 2
    told = []
    for kept in range(begun, len(lines) + 1):
        killed = tmp_path / f"killed-{kept}"
        killed.mkdir()
        (killed / "study.journal").write_bytes(b"".join(lines[:kept]) + b'{"op_code":')
        again = open_study(killed)
        complete_endings(again, lambda number: {1: 0.5, 2: 0.6})
        (trial,) = again.trials
        told.append("stopped" if is_stopped(trial) else trial.state.name)
        assert trial.intermediate_values == ({1: 0.5} if kept == begun else {1: 0.5, 2: 0.6})
    assert told == ["RUNNING", *["stopped"] * (is_there - begun), *["PRUNED"] * (len(lines) - is_there)]


def test_a_trial_killed_between_its_parameters_gets_the_rest_of_them(found: Prepared, tmp_path: Path) -> None:
    searcher(found, tmp_path).suggest("a")
    lines = journal_lines(tmp_path)
    last = next(number for number, line in enumerate(lines) if json.loads(line).get("param_name") == "weight_decay")
    (tmp_path / "study.journal").write_bytes(b"".join(lines[:last]))
    assert set(read_study(tmp_path).trials[0].params) == {"lr"}
    config = searcher(found, tmp_path).suggest("a")
    assert isinstance(config, dict)
    trial = read_study(tmp_path).trials[0]
    assert set(trial.params) == {"lr", "weight_decay"}
    assert (config["number"], config["run"]["trial"]["lr"]) == (0, trial.params["lr"])
    assert 1e-6 <= config["run"]["trial"]["weight_decay"] <= 1e-2


# A full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """64 KiB."""
    with mounted(tmp_path / "disk", "size=64k") as folder:
        yield folder


def test_on_a_full_disk_the_searcher_asks_for_the_end_once_and_the_journal_stays_whole(
    found: Prepared, disk: Path
) -> None:
    search = begun(found, disk)
    told = StudySearcher(search)
    for trial_id in ("a", "b"):
        assert isinstance(told.suggest(trial_id), dict)
    filler = fill(disk)
    epoch = 0
    while search.early_end.disk_full is None:  # a page of the journal is partly free
        epoch += 1
        told.on_trial_result("a", result(epoch, 0.5))
    told.on_trial_complete("a", result(epoch + 1, 0.5, outcome="finished"))
    told.on_trial_result("b", result(1, 0.4))
    assert told.suggest("c") == "FINISHED"
    assert search.early_end.reason is not None and "while writing" in search.early_end.reason
    assert str(disk / "study.journal") in search.early_end.reason
    assert (disk / "study.journal").read_bytes().endswith(b"}\n")
    known = read_study(disk).trials
    assert [trial.state for trial in known] == [TrialState.RUNNING] * 2
    assert list(known[0].intermediate_values) == list(range(1, epoch))

    filler.unlink()
    told = searcher(found, disk)
    assert [told.suggest(name)["number"] for name in ("a", "b", "c")] == [0, 1, 2]  # type: ignore[index]
    told.on_trial_complete("a", result(epoch, 0.5, outcome="finished"))
    assert read_study(disk).trials[0].state == TrialState.COMPLETE


def test_a_table_that_does_not_fit_leaves_the_old_one(found: Prepared, disk: Path) -> None:
    searcher(found, disk).suggest("a")
    study = read_study(disk)
    write_table(disk, study)
    before = (disk / "trials.csv").read_text()
    fill(disk)
    with pytest.raises(DiskFull, match=r"trials\.csv"):
        write_table(disk, study)
    assert (disk / "trials.csv").read_text() == before


# Weights


def ended_trial(
    study: optuna.Study,
    folder: Path,
    value: float,
    weights: bytes,
    state: TrialState = TrialState.COMPLETE,
    **params: float,
) -> None:
    """Adds an ended trial with a file of weights."""
    told = value if state == TrialState.COMPLETE else None
    distributions = {name: FloatDistribution(0, 1) for name in params}
    study.add_trial(
        optuna.trial.create_trial(
            params=params,
            distributions=distributions,
            value=told,
            state=state,
            intermediate_values={1: value},
            user_attrs={OUTCOME: "finished"},
        )
    )
    run = folder / f"t{len(study.trials) - 1:03d}"
    run.mkdir()
    (run / "model.safetensors").write_bytes(weights)
    (run / "model.sha256").write_text(f"{weights.hex()}  model.safetensors\n")


def test_equal_weights_from_different_learning_rates_are_told_with_both_trials(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    ended_trial(study, tmp_path, 0.5, b"ab", lr=0.1, max_norm=1.0)
    ended_trial(study, tmp_path, 0.5, b"ac", lr=0.2, max_norm=1.0)
    ended_trial(study, tmp_path, 0.5, b"ab", lr=0.2, max_norm=1.0)
    assert equal_weights(tmp_path, study, 1) is None
    # Whichever of them ends last: one that was stopped may be continued.
    assert equal_weights(tmp_path, study, 0) == equal_weights(tmp_path, study, 2)
    assert equal_weights(tmp_path, study, 2) == (
        "trials 0 and 2 have identical weights although they differ in lr (0.1 and 0.2): the settings have no "
        "effect on the training, so comparing trials would be meaningless"
    )


def test_equal_weights_are_right_where_only_a_clipping_norm_that_nothing_reached_differs(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    ended_trial(study, tmp_path, 0.5, b"ab", lr=0.1, max_norm=0.5)
    ended_trial(study, tmp_path, 0.5, b"ab", lr=0.1, max_norm=1.0)
    assert equal_weights(tmp_path, study, 1) is None


def test_the_checkpoints_of_stopped_trials_stay_as_long_as_they_fit_the_worst_ones_go_first(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for value in (0.5, 0.7, 0.6, 0.9):
        trial = study.ask({"lr": FloatDistribution(0, 1)})
        run = tmp_path / f"t{trial.number:03d}"
        run.mkdir()
        for name in ("last.pt", "previous.pt"):
            (run / name).write_bytes(bytes(50))
        (run / "model.safetensors").write_bytes(bytes(100))
        if trial.number < 3:
            stop_trial(study, trial, {1: value})
        else:
            trial.report(value, 1)  # it runs

    def left(name: str) -> list[str]:
        return sorted(path.parent.name for path in tmp_path.glob(f"t*/{name}"))

    drop_losers(tmp_path, study, budget_bytes=50, checkpoints_bytes=250)
    assert left("last.pt") == left("previous.pt") == ["t001", "t002", "t003"]
    assert left("model.safetensors") == ["t000", "t001", "t002", "t003"]  # one may still become the best
    end_stopped(study)
    drop_losers(tmp_path, study, budget_bytes=50, checkpoints_bytes=250)
    assert left("last.pt") == ["t003"]
    assert left("model.safetensors") == ["t003"]


def test_only_the_best_weights_that_fit_the_budget_stay_and_the_winners_always(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    ended_trial(study, tmp_path, 0.9, bytes(100), TrialState.FAIL, lr=0.1)
    ended_trial(study, tmp_path, 0.8, bytes(100), lr=0.2)
    ended_trial(study, tmp_path, 0.3, bytes(100), lr=0.3)
    drop_losers(tmp_path, study, budget_bytes=50)
    assert [path.parent.name for path in tmp_path.glob("t*/model.safetensors")] == ["t001"]
