"""Searches and trainings in a folder, each in a few facts: what is damaged, old or under way is a row as well."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from invented_search import REFERENCE_SETTING, InventedTrial, invent_search

import tune_cropshield as tc
from tune_cropshield.outcome.overview import Overview, find_folders, overview
from tune_cropshield.search.folder import locked
from tune_cropshield.search.state import State, write_end
from tune_cropshield.training.run_folder import write_json

BETTER = {**REFERENCE_SETTING, "lr": 1e-3}


@pytest.fixture
def search_dir(tmp_path: Path, drawn_leaves: Path, shared_cache: Path) -> Path:
    """A search of an earlier version: two of 100 trials have ended, the second with val_acc 0.75, and one is under
    way.
    """
    folder = tmp_path / "runs" / "leaves"
    trials = [
        InventedTrial(REFERENCE_SETTING, [0.5, 0.25]),
        InventedTrial(BETTER, [0.5, 0.75], "pruned"),
        InventedTrial(BETTER, [0.25], None),
    ]
    invent_search(folder, drawn_leaves, shared_cache, trials)
    return folder


def training_of(search_dir: Path, folder: Path, epochs: int) -> Path:
    """Makes a training of `epochs` from a trial that has two."""
    shutil.copytree(search_dir / "t001", folder)
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(text.replace("epochs = 25", f"epochs = {epochs}"))
    return folder


def test_a_search_in_a_few_facts(search_dir: Path, drawn_leaves: Path) -> None:
    line = json.loads((search_dir / "starts.jsonl").read_text())
    (search_dir / "starts.jsonl").write_text(json.dumps({**line, "started": "2026-03-01T08:30:00+0000"}) + "\n")

    assert overview(search_dir) == Overview(
        folder=search_dir,
        kind="search",
        state="interrupted",
        why="",
        model="tiny_cnn",
        data=str(drawn_leaves),
        done=2,
        of=100,
        best_val_acc=0.75,
        begun=datetime(2026, 3, 1, 8, 30, tzinfo=UTC),
    )


def test_what_runs_is_told_by_the_lock(search_dir: Path) -> None:
    (search_dir / ".lock").touch()
    assert overview(search_dir).state == "interrupted"
    with locked(search_dir):
        assert overview(search_dir).state == "running"
    assert overview(search_dir).state == "interrupted"


@pytest.mark.parametrize(
    "state", [State("finished", "the time budget is used up"), State("interrupted", "interrupted"), State("failed")]
)
def test_how_a_search_ended_is_what_it_wrote_last(search_dir: Path, state: State) -> None:
    write_end(search_dir, state)

    found = overview(search_dir)

    assert (found.state, found.why) == (state.name, state.why)
    with locked(search_dir):  # by another command, such as confirm
        assert overview(search_dir).state == state.name


def test_who_only_looks_at_a_search_keeps_nobody_from_it(search_dir: Path) -> None:
    holding = threading.Event()

    def look() -> None:
        with locked(search_dir):
            holding.set()
            time.sleep(0.1)

    thread = threading.Thread(target=look)
    thread.start()
    holding.wait()
    assert overview(search_dir).state == "interrupted"  # two who look at once take nothing for running
    thread.join()


def test_a_search_that_was_gone_on_with_and_killed_is_no_longer_finished(search_dir: Path) -> None:
    write_end(search_dir, State("finished"))
    start = (search_dir / "starts.jsonl").read_text()
    (search_dir / "starts.jsonl").write_text(start + start)

    found = overview(search_dir)

    assert (found.state, found.why) == ("interrupted", "its last start did not come to its end")
    with locked(search_dir):
        assert overview(search_dir).state == "running"


def test_a_search_that_was_killed_while_it_wrote_its_first_results_is_interrupted(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    folder = tmp_path / "killed"
    trials = [InventedTrial(REFERENCE_SETTING, [0.5], outcome) for outcome in ("finished", "pruned")]
    invent_search(folder, drawn_leaves, shared_cache, trials)
    settings, starts = folder / "search.toml", folder / "starts.jsonl"
    settings.write_text(settings.read_text().replace("trials = 100", "trials = 2"))
    assert overview(folder).state == "finished"  # for all that an earlier version tells

    starts.write_text(json.dumps(json.loads(starts.read_text()) | {"set": ["trials"]}) + "\n")
    assert (overview(folder).state, overview(folder).why) == ("interrupted", "its last start did not come to its end")


def test_a_search_of_an_earlier_version_is_judged_by_what_is_left(
    tmp_path: Path, drawn_leaves: Path, shared_cache: Path
) -> None:
    def state_with(outcomes: list[str], trials: int) -> str:
        folder = tmp_path / f"{'-'.join(outcomes)}-{trials}"
        invented = [InventedTrial(REFERENCE_SETTING, [0.5], outcome) for outcome in outcomes]
        invent_search(folder, drawn_leaves, shared_cache, invented)
        settings = folder / "search.toml"
        settings.write_text(settings.read_text().replace("trials = 100", f"trials = {trials}"))
        return overview(folder).state

    assert state_with(["finished", "pruned"], 2) == "finished"
    assert state_with(["finished", "pruned"], 3) == "interrupted"
    assert state_with(["failed", "failed"], 2) == "failed"
    assert state_with(["finished", "failed"], 2) == "finished"


def test_a_final_training_is_the_result_and_an_interrupted_one_interrupts(search_dir: Path) -> None:
    shutil.copytree(search_dir / "t001", search_dir / "final")
    metrics = search_dir / "final" / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('"val_acc": 0.75', '"val_acc": 0.875'))
    settings = search_dir / "search.toml"
    settings.write_text(settings.read_text().replace('time_budget = ""', 'time_budget = "1h"'))
    write_json(search_dir / "final" / "origin.json", {"trial": 1, "after_trials": 3, "outcome": "finished"})

    assert (overview(search_dir).best_val_acc, overview(search_dir).state) == (0.875, "finished")

    write_json(search_dir / "final" / "origin.json", {"trial": 1, "after_trials": 3})
    assert overview(search_dir).state == "interrupted"


def test_a_training_counts_its_epochs(search_dir: Path, tmp_path: Path, drawn_leaves: Path) -> None:
    ended, begun = training_of(search_dir, tmp_path / "a", 2), training_of(search_dir, tmp_path / "b", 5)

    found = overview(ended)

    assert (found.kind, found.state, found.done, found.of, found.best_val_acc) == ("training", "finished", 2, 2, 0.75)
    assert (found.model, found.data) == ("tiny_cnn", str(drawn_leaves))
    assert (overview(begun).state, overview(begun).done, overview(begun).of) == ("interrupted", 2, 5)
    (begun / ".lock").touch()
    with locked(begun, "training"):
        assert overview(begun).state == "running"


def test_a_training_that_waited_long_enough_for_a_better_epoch_has_finished(search_dir: Path, tmp_path: Path) -> None:
    folder = training_of(search_dir, tmp_path / "a", 9)
    line = (folder / "metrics.jsonl").read_text().splitlines()[0]
    with open(folder / "metrics.jsonl", "a") as file:
        file.write("".join(line.replace('"epoch": 1', f'"epoch": {epoch}') + "\n" for epoch in (3, 4)))
    text = (folder / "config.toml").read_text()
    assert overview(folder).state == "interrupted"

    (folder / "config.toml").write_text(text.replace("early_stopping = 0", "early_stopping = 2"))
    assert overview(folder).state == "finished"


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("search.toml", b"", "search.toml is empty"),
        ("search.toml", b"[trial\n", "search.toml: not valid TOML"),
        ("search.toml", b"\xff\xfe", "not UTF-8"),
        ("search.toml", b"trial = 3\n", "[trial] must be a table"),
        ("search.toml", None, "search.toml: no such file"),
        ("study.journal", b"", "study.journal is damaged"),
        ("study.journal", b"nonsense\n", "study.journal is damaged"),
        ("t001/metrics.jsonl", b'{"epoch": 1, "val_acc": 0.5}\n{"epoch\n', "t001/metrics.jsonl: line 2 is damaged"),
        ("t001/metrics.jsonl", b"\xe4\n", "t001/metrics.jsonl: line 1 is damaged"),
        ("study.journal", b"\x00" * 64 + b"\n", "study.journal is damaged"),
        ("t001/metrics.jsonl", b"{\n{\n", "Expecting property name"),
        ("final/metrics.jsonl", b"[]\n[]\n", ""),
    ],
)
def test_a_damaged_search_says_what_is_wrong(search_dir: Path, name: str, content: bytes | None, why: str) -> None:
    (search_dir / "final").mkdir()
    write_json(search_dir / "final" / "origin.json", {"trial": 1})
    if content is None:
        (search_dir / name).unlink()
    else:
        (search_dir / name).write_bytes(content)

    found = overview(search_dir)

    assert (found.state, found.folder) == ("damaged", search_dir)
    assert why in found.why and str(search_dir) not in found.why and "\n" not in found.why
    assert found.begun is not None


def test_half_a_line_at_the_end_of_a_journal_is_no_damage(search_dir: Path) -> None:
    with open(search_dir / "study.journal", "ab") as file:
        file.write(b'{"op_code": 5, "wor')

    assert (overview(search_dir).state, overview(search_dir).done) == ("interrupted", 2)


def test_settings_of_another_version_are_no_damage(search_dir: Path) -> None:
    with open(search_dir / "search.toml", "a") as file:
        file.write("\n[a_table_of_tomorrow]\nmetric = 'val_macro_f1'\n")

    assert (overview(search_dir).state, overview(search_dir).model) == ("interrupted", "tiny_cnn")


def test_a_search_that_has_not_come_to_its_journal(search_dir: Path) -> None:
    (search_dir / "study.journal").unlink()
    (search_dir / ".lock").touch()

    found = overview(search_dir)

    assert (found.state, found.why, found.done, found.of) == ("interrupted", "no trial has begun", 0, 100)
    with locked(search_dir):
        assert overview(search_dir).state == "running"


def test_searches_are_found_at_whatever_depth_and_what_lies_in_one_is_its_own(search_dir: Path, tmp_path: Path) -> None:
    runs = search_dir.parent
    shutil.copytree(search_dir, runs / "deep" / "er" / "still" / "one")
    training_of(search_dir, runs / "deep" / "training", 2)
    (runs / ".hidden").mkdir()
    (runs / "empty").mkdir()
    shutil.copytree(search_dir, runs / ".hidden" / "search")
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(search_dir, elsewhere)
    (runs / "linked").symlink_to(elsewhere)
    (runs / "deep" / "back").symlink_to(runs)

    found = [str(folder.relative_to(runs)) for folder in find_folders(runs)]

    assert found == ["deep/er/still/one", "deep/training", "leaves", "linked"]
    assert list(find_folders(runs / "leaves")) == [runs / "leaves"]
    assert list(find_folders(runs / "leaves" / "t001")) == [runs / "leaves" / "t001"]
    assert [folder.name for folder in find_folders(runs, depth=1)] == ["leaves", "linked"]


def test_the_newest_comes_first(search_dir: Path) -> None:
    runs = search_dir.parent
    start = json.loads((search_dir / "starts.jsonl").read_text())
    for name, began in (("spring", "2026-03-01T08:30:00+0000"), ("summer", "2026-07-01T08:30:00+0200")):
        shutil.copytree(search_dir, runs / name)
        (runs / name / "starts.jsonl").write_text(json.dumps({**start, "started": began}) + "\n")
    shutil.copytree(search_dir, runs / "older_version")
    (runs / "older_version" / "starts.jsonl").unlink()
    for path in (runs / "older_version").iterdir():
        os.utime(path, (1_775_000_000, 1_775_000_000))  # 31 March 2026

    found = tc.list_searches(runs)

    assert [one.folder.name for one in found] == ["leaves", "summer", "older_version", "spring"]
    assert [one.folder.name for one in tc.list_searches(str(search_dir))] == ["leaves"]


def test_two_hundred_searches_are_listed_in_seconds(search_dir: Path) -> None:
    for number in range(199):
        folder = search_dir.parent / f"s{number}"
        folder.mkdir()
        for name in ("search.toml", "starts.jsonl", "study.journal"):
            shutil.copyfile(search_dir / name, folder / name)

    began = time.monotonic()
    assert len(tc.list_searches(search_dir.parent)) == 200
    assert time.monotonic() - began < 10  # 0.6 s, where nothing else runs


def test_no_folder_named_and_no_searches_yet_is_an_empty_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert tc.list_searches() == []
    with pytest.raises(tc.UserError, match="DIR nowhere: there is no such folder"):
        tc.list_searches("nowhere")
    Path("file").touch()
    with pytest.raises(tc.UserError, match="DIR file: is not a folder"):
        tc.list_searches("file")


def test_starts_that_are_damaged_are_passed_over(search_dir: Path) -> None:
    (search_dir / "starts.jsonl").write_bytes(b"\xe4\xff\n")

    assert overview(search_dir).state == "interrupted"
