"""Somebody stops a trial, or the whole search, from another process: what the search makes of it. No Ray runtime."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from begun_search import Photographs, begun, prepared
from filelock import FileLock
from ray.tune.experiment import Trial
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import tune_cropshield as tc
from tune_cropshield.api.finish import train_winner_on
from tune_cropshield.cli import main
from tune_cropshield.search.context import Search
from tune_cropshield.search.earlier import read_past
from tune_cropshield.search.endings import METRIC, end_stopped
from tune_cropshield.search.folder import locked, trial_rows
from tune_cropshield.search.journal import best_first, read_study, stopped, unfinished
from tune_cropshield.search.prepare import Prepared
from tune_cropshield.search.ray_events import PruningScheduler, SearchStopper
from tune_cropshield.search.ray_runtime import RayRuntime
from tune_cropshield.search.searcher import StudySearcher
from tune_cropshield.search.state import State, write_end
from tune_cropshield.search.stop_requests import StopRequest, StopRequests
from tune_cropshield.search.stopping import obey_requests
from tune_cropshield.search.views.plain import PlainView
from tune_cropshield.search.views.view import SearchView


@pytest.fixture
def found(drawn_leaves: Path, shared_cache: Path, tmp_path: Path) -> Prepared:
    """What the searches below run on: 6 trials of 9 epochs, judged after 3 and 6."""
    here = prepared(Photographs(drawn_leaves, shared_cache), tmp_path / "space.toml")
    return replace(
        here, space=here.space.model_copy(update={"search": here.space.search.model_copy(update={"trials": 6})})
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


def result(epoch: int, value: float, **more: Any) -> dict[str, Any]:
    return {"epoch": epoch, METRIC: value, **more}


def ask(search: Search, trial: int | None) -> StopRequest:
    """Asks as another process does, and lets the search look at once."""
    request = StopRequest(search.folder, trial)
    request.make()
    time.sleep(0.6)  # it looks twice a second
    obey_requests(search)
    return request


def outcomes(folder: Path) -> dict[int, tuple[str, str, str]]:
    rows = trial_rows(folder, read_study(folder))
    return {row["trial"]: (row["state"], row["outcome"], row["reason"]) for row in rows}


def test_a_trial_without_a_checkpoint_starts_and_one_with_a_checkpoint_continues(
    found: Prepared, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    for name in ("a", "b"):
        told.suggest(name)
        told.on_trial_result(name, result(2, 0.5))
    (out / "t001" / "last.pt").write_bytes(b"a checkpoint")

    for number in (0, 1):
        PlainView().trial_started(search.line_at_start(number))

    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("t000 starts: lr=")
    assert said[1].startswith("t001 continues (2 of 9 epochs are done): lr=")


def test_a_running_trial_is_pruned_for_good_at_the_end_of_its_epoch_with_what_it_had_reached(
    found: Prepared, out: Path
) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    told.suggest("a")
    told.suggest("b")
    told.on_trial_result("a", result(1, 0.5))
    told.on_trial_result("b", result(1, 0.4))

    ask(search, 1)

    assert search.asked_to_stop == {1}
    assert outcomes(out)[1] == ("RUNNING", "unfinished", "")  # its epoch is not at its end
    search.pruned.add(1)  # as the scheduler does
    told.on_trial_complete("b", result(2, 0.7))
    trial = read_study(out).trials[1]
    assert (trial.state.name, trial.intermediate_values, trial.constraints) == (
        "PRUNED",
        {1: 0.4, 2: 0.7},
        {"memory": 0.0},
    )
    assert outcomes(out)[1] == ("PRUNED", "pruned", "stopped by hand")
    assert [trial.number for trial in best_first(search.study)] == [1, 0]  # it stays the winner, with its weights

    # neither promoted, as the winner, nor resumed
    assert stopped(search.study) == []
    again = begun(found, out)
    assert [trial.number for trial in unfinished(again.study)] == [0]
    assert again.steering.next_trial().number == 0  # type: ignore[union-attr]
    assert again.steering.next_trial().number == 2  # type: ignore[union-attr]


def test_the_scheduler_stops_what_somebody_stops_and_tells_the_pruning_rule_of_its_epoch(
    found: Prepared, out: Path
) -> None:
    search = begun(found, out)
    scheduler = PruningScheduler(search, StudySearcher(search), RayRuntime(None))
    trial = ray_trial(0)
    assert scheduler.on_trial_result(None, trial, result(1, 0.5, val_loss=1.0)) == "CONTINUE"
    search.asked_to_stop.add(0)
    assert scheduler.on_trial_result(None, trial, result(3, 0.6, val_loss=1.0)) == "STOP"
    assert search.pruned == {0}
    # Its score at the first step counts: the next one there, which is better, is not without a comparison.
    assert search.steering.judge(1, 3, 0.7, 1.0) is False


def ray_trial(number: int) -> Any:
    trial = Trial.__new__(Trial)
    trial.config = {"number": number}
    return trial


def test_a_trial_that_waits_after_a_pruning_step_is_never_gone_on_with(found: Prepared, out: Path) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    told.suggest("a")
    search.pruned.add(0)
    told.on_trial_complete("a", result(2, 0.9))
    assert [trial.number for trial in stopped(search.study)] == [0]
    search.view.ended = 1

    ask(search, 0)

    assert outcomes(out)[0] == ("PRUNED", "pruned", "stopped by hand")
    assert search.steering.next_trial().number == 1  # type: ignore[union-attr]
    assert search.view.ended == 1  # it was counted when it was pruned
    assert search.view.trained_at_last is None
    assert end_stopped(search.study) == []


@pytest.mark.parametrize(
    ("reached", "outcome"),
    [
        ({1: 0.5}, ("PRUNED", "pruned", "stopped by hand")),
        ({}, ("FAIL", "failed", "stopped by hand before its first epoch")),
    ],
    ids=["with an epoch", "without one"],
)
def test_an_interrupted_trial_that_waits_for_its_turn_is_left_out(
    found: Prepared, out: Path, reached: dict[int, float], outcome: tuple[str, str, str]
) -> None:
    told = StudySearcher(begun(found, out))
    told.suggest("a")
    for epoch, value in reached.items():
        told.on_trial_result("a", result(epoch, value))
    search = begun(found, out)  # as after a kill
    search.view.begin(6, 0)

    ask(search, 0)

    assert outcomes(out)[0] == outcome
    assert search.view.ended == 1
    assert search.steering.next_trial().number == 1  # type: ignore[union-attr]


def test_the_whole_search_ends_as_after_ctrl_c_and_says_why(found: Prepared, out: Path) -> None:
    notes: list[str] = []

    class Notes(SearchView):
        def note(self, text: str) -> None:
            notes.append(text)

    search = begun(found, out)
    search.view = Notes()
    stopper = SearchStopper(search)
    StopRequest(out, None).make()
    assert stopper.stop_all() is True
    assert (search.early_end.interrupted, search.early_end.reason) == (True, "stopped by hand")
    assert stopper.stop_all() is True
    assert [note.partition(":")[0] for note in notes] == ["stopping"]


def test_what_was_asked_of_an_earlier_run_does_not_stop_a_later_one(found: Prepared, out: Path) -> None:
    StopRequest(out, None).make()
    StopRequest(out, 0).make()
    search = begun(found, out)
    StudySearcher(search).suggest("a")
    time.sleep(0.6)
    obey_requests(search)
    assert (search.early_end.is_due(), search.asked_to_stop) == (False, set())
    assert sorted(path.name for path in out.glob(".stop*")) == []


def test_other_files_and_trials_that_have_ended_or_never_were_are_passed_over(found: Prepared, out: Path) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    told.suggest("a")
    told.on_trial_complete("a", result(9, 0.5, outcome="finished"))
    for name in (".stop-all.request", ".stop-t1-zz.request", ".stop-all-12345678.json", ".stop-t000-12345678.taken"):
        (out / name).touch()
    for number in (0, 1, 400):
        ask(search, number)
    assert (search.early_end.is_due(), search.asked_to_stop) == (False, set())
    assert outcomes(out)[0] == ("COMPLETE", "finished", "")


def test_a_request_is_made_again_where_a_search_that_starts_has_removed_it_and_withdrawn_at_its_end(out: Path) -> None:
    request, requests = StopRequest(out, 3), StopRequests(out)
    request.make()
    requests.forget()
    request.make()
    assert requests.take() == [3]
    assert request.is_taken
    request.make()  # once is enough
    time.sleep(0.6)
    assert requests.take() == []
    request.end()
    assert list(out.iterdir()) == []
    withdrawn = StopRequest(out, None)
    withdrawn.make()
    withdrawn.end()
    assert requests.take() == []


def test_a_later_search_does_not_take_a_trial_that_was_stopped_before_its_first_epoch_for_a_failure(
    found: Prepared, out: Path
) -> None:
    told = StudySearcher(begun(found, out))
    told.suggest("a")
    search = begun(found, out)
    ask(search, 0)
    again = StudySearcher(search)
    again.suggest("b")
    again.on_trial_complete("b", result(9, 0.5, outcome="finished"))
    past = read_past(out, found.space)
    assert past is not None
    assert [trial.failed for trial in past.trials] == [False]


def test_tensorboard_tells_what_was_stopped_by_hand_from_what_the_rule_pruned(found: Prepared, out: Path) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    for number, trial_id in enumerate("ab"):
        told.suggest(trial_id)
        search.pruned.add(number)
        told.on_trial_complete(trial_id, result(2, 0.9))
    ask(search, 1)
    for number in end_stopped(search.study):
        search.hparams.trial_ended(number, "pruned")

    def shown(number: int) -> float:
        (folder,) = {path.parent for path in (out / f"t{number:03d}").glob("*/events*")}
        events = EventAccumulator(str(folder))
        events.Reload()
        return float(events.Scalars("search/pruned")[-1].value)

    assert (shown(0), shown(1)) == (1.0, 2.0)


def test_the_final_training_stops_at_the_end_of_its_epoch_and_is_gone_on_with(found: Prepared, out: Path) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    told.suggest("a")
    told.on_trial_complete("a", result(9, 0.5, outcome="finished"))
    StopRequest(out, None).make()
    finish = train_winner_on(search, lambda: None)
    assert finish.lines == ["final training: trial 0's setting, interrupted after 1 epoch"]
    assert (search.early_end.interrupted, search.early_end.reason) == (True, "stopped by hand")
    assert (out / "final" / "last.pt").is_file()


# The command, and the search in another thread


def in_a_search(search: Search, do: Callable[[], object], seconds: float = 20) -> threading.Thread:
    """Lets a thread hold the search's folder and look at requests, until `do` returns something true."""
    held = threading.Event()

    def run() -> None:
        with locked(search.folder):
            held.set()
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline and not do():
                obey_requests(search)
                time.sleep(0.05)

    thread = threading.Thread(target=run)
    thread.start()
    held.wait()
    return thread


def test_the_command_waits_until_the_trial_has_stopped_and_says_so(
    found: Prepared, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    told.suggest("a")
    told.on_trial_result("a", result(1, 0.5))

    def end_of_epoch() -> bool:
        if 0 in search.asked_to_stop:
            told.on_trial_complete("a", result(2, 0.6))
        return bool(search.asked_to_stop)

    thread = in_a_search(search, end_of_epoch)
    assert main(["stop", str(out), "t000"]) == 0
    thread.join()
    asked, said = capsys.readouterr().out.splitlines()
    assert asked == f"asked {out} to stop t000, at the end of its epoch: waiting for it"
    assert said == "t000 pruned after 0 epochs (stopped by hand): the search continues without it"
    assert list(out.glob(".stop*")) == []


def test_a_trial_that_ends_of_itself_first_is_told_as_such(found: Prepared, out: Path) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    told.suggest("a")

    def finish() -> bool:
        if search.asked_to_stop:
            told.on_trial_complete("a", result(9, 0.6, outcome="finished"))
        return bool(search.asked_to_stop)

    thread = in_a_search(search, finish)
    ended = tc.stop(out, 0)
    thread.join()
    assert ended.stopped is False
    assert ended.said == "t000 finished after 0 epochs: it ended of itself before it could be stopped"


def test_the_whole_search_is_waited_for_also_by_two_at_once(found: Prepared, out: Path) -> None:
    search = begun(found, out)
    told = StudySearcher(search)
    told.suggest("a")
    told.on_trial_result("a", result(1, 0.5))
    thread = in_a_search(search, search.early_end.is_due)
    results: list[tc.StopResult] = []
    other = threading.Thread(target=lambda: results.append(tc.stop(out)))
    other.start()
    results.append(tc.stop(str(out)))
    other.join()
    thread.join()
    assert {(each.trial, each.folder) for each in results} == {(None, out)}
    assert any(each.stopped for each in results)
    begins = f"the search in {out} stopped; best so far: trial 0, val_acc 0.5000. To continue:  "
    assert any(each.said.startswith(begins) and each.said.endswith("--resume") for each in results)
    assert list(out.glob(".stop*")) == []


def test_confirm_of_a_search_that_has_ended_is_stopped_as_what_it_is(found: Prepared, out: Path) -> None:
    search = begun(found, out)
    write_end(out, State("finished"))
    told: list[str] = []
    thread = in_a_search(search, search.early_end.is_due)
    ended = tc.stop(out, told=told.append)
    thread.join()
    assert told == [f"asked {out} to stop confirm, at the end of the epoch: waiting for it"]
    assert (ended.stopped, ended.said) == (True, f"confirm of {out} stopped: the same command continues it")


def test_a_search_that_does_not_answer_is_told_and_the_request_withdrawn(found: Prepared, out: Path) -> None:
    StudySearcher(begun(found, out)).suggest("a")
    with FileLock(out / ".lock"):
        late = tc.stop(out, "0", wait_s=0.3)
    assert late.stopped is False
    assert late.said == (
        f"the search in {out} has not answered within 0 s: it hangs, or an earlier version runs there, or another "
        "command; the request is withdrawn"
    )
    assert list(out.glob(".stop*")) == []


def test_a_search_that_ends_before_the_trial_has_stopped_is_told(found: Prepared, out: Path) -> None:
    search = begun(found, out)
    StudySearcher(search).suggest("a")
    thread = in_a_search(search, lambda: bool(search.asked_to_stop))
    ended = tc.stop(out, 0)
    thread.join()
    assert (ended.stopped, ended.said) == (
        False,
        f"the search in {out} has ended, and t000 had not stopped by then: --resume continues it",
    )


def test_what_cannot_be_stopped_is_told_in_a_sentence(
    found: Prepared, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refusal(*words: str) -> str:
        assert main(["stop", *words]) == 2
        return capsys.readouterr().err

    assert refusal(str(tmp_path / "nowhere")) == f"error: SEARCH_DIR {tmp_path / 'nowhere'}: there is no such folder\n"
    assert refusal(str(tmp_path)) == f"error: {tmp_path} holds no search\n"
    training = tmp_path / "training"
    training.mkdir()
    (training / "config.toml").touch()
    with FileLock(training / ".lock"):
        assert refusal(str(training)) == (
            f"error: {training} is a training, not a search: it is stopped where it runs (Ctrl-C)\n"
        )
    search = begun(found, out)
    (out / ".lock").touch()
    assert refusal(str(out)) == f"error: no search is running in {out}: there is nothing to stop\n"
    with FileLock(out / ".lock"):
        assert refusal(str(out), "0") == f"error: the search in {out} has no trial 0 yet: it has begun none\n"
        told = StudySearcher(search)
        told.suggest("a")
        told.on_trial_complete("a", result(9, 0.5, outcome="finished"))
        assert refusal(str(out), "t000") == "error: t000 has ended already: finished after 0 epochs\n"
        assert refusal(str(out), "3") == f"error: the search in {out} has no trial 3 yet: the newest is t000\n"
        for wrong in ("x3", "-1", "t", "3.0", "٣"):
            with pytest.raises(tc.UserError, match=r"^TRIAL: must be a number like 3, or a name like t003, but got "):
                tc.stop(out, wrong)
    assert list(out.glob(".stop*")) == []
