"""What is on the disk when the journal says that a trial has ended: all that a power cut must not take.

The operating system's fsync is listened to; everything that it does is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from begun_search import Photographs, begun, prepared

from tune_cropshield.data.dataset import DeviceData
from tune_cropshield.outcome.export import write_best
from tune_cropshield.search.endings import end_stopped
from tune_cropshield.search.folder import drop_losers
from tune_cropshield.search.searcher import StudySearcher
from tune_cropshield.search.trial_end import after_trial
from tune_cropshield.training.loop import TrialEnded, run_trial, trial_epochs

KEPT = {
    "config.toml",
    "classes.json",
    "metrics.json",
    "metrics.jsonl",
    "model.safetensors",
    "model.sha256",
    "preparation.json",
    "predictions.csv",
    "times.jsonl",
}


@dataclass
class Syncs:
    """Every fsync: (path, what `look` saw at that moment)."""

    seen: list[tuple[Path, Any]] = field(default_factory=list)
    look: Any = None

    def before(self, condition: Any) -> set[Path]:
        """The paths that were synced before the first moment at which `condition` holds of what was seen."""
        first = next(number for number, (path, saw) in enumerate(self.seen) if condition(path, saw))
        return {path for path, _ in self.seen[:first]}


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Syncs]:
    heard, really = Syncs(), os.fsync

    def fsync(number: int) -> None:
        really(number)
        heard.seen.append((Path(os.readlink(f"/proc/self/fd/{number}")), heard.look() if heard.look else None))

    monkeypatch.setattr(os, "fsync", fsync)
    yield heard


@pytest.mark.parametrize("outcome", ["finished", "pruned"])
def test_a_trials_files_are_on_the_disk_before_the_journal_calls_it_ended_and_its_checkpoints_go_after(
    outcome: str, syncs: Syncs, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    search = begun(prepared(Photographs(drawn_leaves, shared_cache), tmp_path / "space.toml"), out)
    searcher = StudySearcher(search)
    started = searcher.suggest("a")
    assert isinstance(started, dict)
    run = search.run_config(search.study.trials[0].params)
    data = DeviceData(search.data, torch.device("cpu"))
    epochs = trial_epochs(run, data, out / "t000", checkpoint_every_s=0)
    reports = list(epochs) if outcome == "finished" else [next(epochs), next(epochs)]
    told = [{"epoch": report.metrics.epoch, "best_value": report.best_value} for report in reports]
    for result in told[:-1]:
        searcher.on_trial_result("a", result)
    assert (out / "t000" / "last.pt").exists()

    syncs.seen.clear()
    told_by = {"finished": '"finished"', "pruned": '"stopped_after"'}[outcome]
    syncs.look = lambda: (told_by in (out / "study.journal").read_text(), (out / "t000" / "last.pt").exists())
    if outcome == "finished":
        searcher.on_trial_complete("a", {**told[-1], "outcome": "finished"})
    else:
        search.pruned.add(0)
        searcher.on_trial_complete("a", told[-1])
    synced = syncs.before(lambda path, saw: path.name == "study.journal" and saw[0])
    assert {path.name for path in synced if path.parent == out / "t000"} >= KEPT
    assert {out, out / "t000"} <= synced  # the names of the files too
    assert all(saw[1] for _, saw in syncs.seen)  # the checkpoint was there all the time

    after_trial(search, 0, outcome, None)
    if outcome == "pruned":  # it may be continued as long as the search lasts
        assert (out / "t000" / "last.pt").exists()
        end_stopped(search.study)
        drop_losers(out, search.study)
    assert not (out / "t000" / "last.pt").exists()
    if outcome == "pruned":
        with pytest.raises(TrialEnded):
            epochs.throw(TrialEnded())

    syncs.seen.clear()
    syncs.look = lambda: (out / "best").exists()
    write_best(out)
    aside = {path.name for path in syncs.before(lambda path, saw: saw) if path.parent.name == ".best.tmp"}
    assert aside >= {"config.toml", "config.json", "classes.json", "metrics.json", "model.safetensors", "retrain.sh"}
    assert syncs.seen[-1] == (out, True)  # the new name is on the disk


def test_a_training_by_itself_is_on_the_disk_when_it_returns(
    syncs: Syncs, drawn_leaves: Path, shared_cache: Path, tmp_path: Path
) -> None:
    found = prepared(Photographs(drawn_leaves, shared_cache), tmp_path / "space.toml")
    (tmp_path / "out").mkdir()
    run = begun(found, tmp_path / "out").run_config({})
    data = DeviceData(found.data, torch.device("cpu"))
    run_trial(run, data, tmp_path / "alone", report=lambda report: syncs.seen.clear())
    assert {path.name for path, _ in syncs.seen if path.parent == tmp_path / "alone"} >= KEPT
