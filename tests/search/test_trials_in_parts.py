"""A search whose trials are in parts: its settings, how it judges and ranks, and its files. No Ray runtime: the
searcher, the pruning rule and the worker are handed on to each other here, as Ray does.
"""

from __future__ import annotations

import csv
import gc
import io
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from begun_search import Photographs, begun, prepared
from optuna.trial import TrialState
from rich.console import Console

from tune_cropshield.api.evaluate import evaluate
from tune_cropshield.api.results import open_search
from tune_cropshield.cli import main
from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig, load_config
from tune_cropshield.config.space import SearchSettings
from tune_cropshield.config.space_file import load_space
from tune_cropshield.data.split_file import read_split
from tune_cropshield.errors import ConfigError, UserError
from tune_cropshield.outcome.export import write_best
from tune_cropshield.outcome.report import write_report
from tune_cropshield.outcome.summary import summary_facts, summary_lines
from tune_cropshield.outcome.trained import read_run
from tune_cropshield.search.context import Search
from tune_cropshield.search.endings import end_stopped
from tune_cropshield.search.folder import drop_losers, write_table
from tune_cropshield.search.journal import best_first, best_value
from tune_cropshield.search.pruning import build_pruning
from tune_cropshield.search.same_search import settings_differ
from tune_cropshield.search.searcher import StudySearcher
from tune_cropshield.search.trial_settings import comparable_settings
from tune_cropshield.search.views.live import LiveView
from tune_cropshield.search.views.plain import PlainView
from tune_cropshield.search.views.view import SearchView, TrialLine
from tune_cropshield.search.worker import TrialWorker
from tune_cropshield.training.metrics import METRIC_NAMES
from tune_cropshield.training.run_folder import read_metrics

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
[space]
lr = {log = [1e-4, 1e-1]}
[search]
trials = 3
epochs = 2
grace_epochs = 1
reduction_factor = 2
folds = 3
[[start]]
lr = 3e-3
[[start]]
lr = 1e-4
"""


def test_a_trial_is_judged_within_its_first_part_and_at_each_parts_end() -> None:
    settings = SearchSettings(epochs=25, grace_epochs=2, reduction_factor=3, folds=4)

    assert settings.pruning_steps == (2, 6, 18, 25, 50, 75)
    assert (settings.num_parts, settings.trial_epochs) == (4, 100)
    assert settings.pruned_shares[75] == pytest.approx(2 / 3)
    assert SearchSettings(epochs=25, grace_epochs=2, reduction_factor=3).pruning_steps == (2, 6, 18)
    rule = build_pruning(settings)
    for step in (2, 6, 18):
        rule.judge(0, step, 0.9, 1.0)
    stopped = [number for number in range(9) if rule.judge(number, 25, 0.1 * (9 - number), 1.0)]
    assert stopped == [1, 2, 3, 4, 5, 6, 7, 8]
    assert not any(rule.judge(0, epoch, 0.1, 1.0) for epoch in range(26, 50))


def test_parts_are_folds_or_seeds() -> None:
    run = RunConfig(data=DataConfig(dir="leaves"), trial=TrialConfig(seed=2**32 - 1))

    assert SearchSettings().parts_of(run) == [run]
    folds = SearchSettings(folds=2).parts_of(run)
    assert [(part.data.folds, part.data.fold, part.trial.seed) for part in folds] == [
        (2, 0, 2**32 - 1),
        (2, 1, 2**32 - 1),
    ]
    seeds = SearchSettings(replicates=3).parts_of(run)
    assert [(part.data.folds, part.data.fold, part.trial.seed) for part in seeds] == [
        (1, 0, 2**32 - 1),
        (1, 0, 0),
        (1, 0, 1),
    ]


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            "[search]\nfolds = 3\nreplicates = 2",
            "at most one of `folds` and `replicates` can be above 1, but got 3 and 2",
        ),
        ("[search]\nfolds = 0", "{}: search.folds: must be at least 1, but got 0"),
        ("[data]\nfolds = 3\nfold = 1", "{}: data.folds: is set by [search] folds"),
        ("[data]\nfolds = 2\nfold = 2", "`fold < folds` must hold, but got 2 and 2"),
    ],
)
def test_parts_that_cannot_be_are_refused_at_once(tmp_path: Path, table: str, told: str) -> None:
    path = tmp_path / "space.toml"
    path.write_text(table)

    with pytest.raises(ConfigError) as refused:
        load_space(path)
    assert told.format(path) in str(refused.value)


def test_only_a_search_in_parts_has_them_among_what_must_stay_the_same() -> None:
    plain = comparable_settings(load_space(Path("search_spaces/demo.toml")))
    assert "parts" not in plain
    assert {"folds", "fold"}.isdisjoint(plain["data"])  # or searches of earlier versions could not be continued

    space = load_space(Path("search_spaces/demo.toml"), {"search": {"folds": 3}})
    assert settings_differ(plain, space) == ["folds (1 then, 3 now)"]


def study_of(*trials: dict[int, float]) -> optuna.Study:
    study = optuna.create_study(direction="maximize")
    for values in trials:
        study.add_trial(optuna.trial.create_trial(state=TrialState.PRUNED, intermediate_values=values))
    return study


def test_a_lucky_first_part_does_not_stand_before_a_mean_over_more() -> None:
    study = study_of({1: 0.5, 2: 0.95}, {1: 0.5, 2: 0.9, 4: 0.7, 6: 0.75}, {2: 0.9, 4: 0.8, 6: 0.7}, {1: 0.99})

    assert [best_value(trial) for trial in study.get_trials()] == [0.95, 0.75, 0.7, 0.99]
    assert [trial.number for trial in best_first(study)] == [3, 0, 1, 2]
    study.set_user_attr("part_epochs", 2)
    assert [trial.number for trial in best_first(study)] == [1, 2, 0, 3]


def test_a_view_tells_the_part_and_which_trial_is_the_best() -> None:
    view = SearchView()
    first, second = (TrialLine(number, {}, "32x1", epochs=6, parts=3) for number in range(2))
    metrics: dict[str, Any] = {"val_acc": 0.5, "images_per_s": 1.0, "peak_vram_mib": 0.0, "best_epoch": 1}

    told = []
    for line, epoch, value in ((first, 1, 0.9), (first, 2, 0.9), (second, 1, 0.95), (first, 4, 0.8), (second, 2, 0.95)):
        if line.number not in view.running:
            view.trial_started(line)
        view.epoch_done(line.number, {**metrics, "epoch": epoch, "best_val_acc": value, "best_value": value})
        told.append((line.part, view.best.number if view.best is not None else None, view.best_value))

    assert told == [
        ("part 1 of 3", 0, 0.9),
        ("part 1 of 3", 0, 0.9),
        ("part 1 of 3", 0, 0.9),  # 0.95 in a first part that has not ended
        ("part 2 of 3", 0, 0.8),
        ("part 1 of 3", 0, 0.8),
    ]
    assert TrialLine(0, {}, "32x1", epochs=6, epoch=5).part == ""


def test_a_log_and_a_terminal_tell_the_part(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = dict.fromkeys(METRIC_NAMES, 0.5) | {"epoch": 3, "best_epoch": 3, "best_val_acc": 0.5, "best_value": 0.5}
    console = Console(file=io.StringIO(), width=100)
    for view in (PlainView(), live := LiveView(console)):
        view.begin(2, 0)
        view.trial_started(TrialLine(0, {}, "32x1", epochs=6, parts=3))
        view.epoch_done(0, metrics)
    console.print(live._render())
    live.trial_ended(0, "pruned", None)

    assert re.search(r"t000 +part 2/3 .* 3/6 ", console.file.getvalue())  # type: ignore[attr-defined]
    PlainView.trial_ended(view := PlainView(running={0: TrialLine(0, {}, "", 6, parts=3, epoch=4)}), 0, "pruned", None)
    assert "t000 pruned after 4 of 6 epochs, in part 2 of 3, best val_acc" in capsys.readouterr().out
    assert view.ended == 1


@pytest.fixture
def photographs(drawn_leaves: Path, home: Path) -> Photographs:
    return Photographs(drawn_leaves, home / "cache" / "tune_cropshield")


@pytest.fixture
def played(photographs: Photographs, tmp_path: Path) -> Iterator[Search]:
    """A search of three trials in three folds, the last of them with a setting that is pruned."""
    out = tmp_path / "out"
    out.mkdir()
    search = begun(prepared(photographs, tmp_path / "space.toml", SPACE), out)
    searcher, worker = StudySearcher(search), TrialWorker.__new__(TrialWorker)
    for turn in range(20):
        name, config = str(turn), searcher.suggest(str(turn))
        if config == "FINISHED":
            break
        assert isinstance(config, dict)
        if not turn:
            worker.setup(config, data=search.data, device="cpu", memory_mib=None, resident_bytes=0)
        else:
            worker.reset_config(config)
        while True:
            result = worker.step()
            number = config["number"]
            stop = search.steering.judge(number, result["epoch"], result["best_value"], result["val_loss"])
            if result["done"] or stop:
                break
            searcher.on_trial_result(name, result)
        if stop and not result["done"]:
            search.pruned.add(number)
        searcher.on_trial_complete(name, result)
    worker.cleanup()
    end_stopped(search.study)
    drop_losers(out, search.study)
    write_table(out, search.study)
    yield search
    gc.unfreeze()


def test_a_search_in_folds_from_its_journal_to_its_report(played: Search, photographs: Photographs) -> None:
    out, best = played.folder, best_first(played.study)[0]
    assert best.state == TrialState.COMPLETE
    assert list(best.intermediate_values) == [1, 2, 3, 4, 5, 6]
    ends = [
        max(line["val_acc"] for line in read_metrics(out / f"t{best.number:03d}" / f"part{part}")) for part in range(3)
    ]
    assert best.value == best.intermediate_values[6] == pytest.approx(sum(ends) / 3)
    assert best.intermediate_values[4] == best.intermediate_values[5] == (ends[0] + ends[1]) / 2
    assert best.value is not None

    with open(out / "trials.csv", newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[best.number]
    assert (row["epochs"], row["parts"], float(row["best_val_acc"])) == ("6", "3", pytest.approx(best.value))
    mean = sum(ends) / 3
    deviation = math.sqrt(sum((end - mean) ** 2 for end in ends) / 2)
    assert float(row["val_acc_std"]) == pytest.approx(deviation)
    results = open_search(out)
    assert results.best is not None and results.best.val_acc == best.value
    assert [line["part"] for line in results.curves if line["trial"] == best.number] == [0, 0, 1, 1, 2, 2]

    # best/: the network of the best part, its photographs, and the setting on the whole train split.
    write_best(out)
    metrics = json.loads((out / "best" / "metrics.json").read_text())
    part = out / f"t{best.number:03d}" / f"part{metrics['part']}"
    assert (metrics["parts"], metrics["mean_val_acc"]) == (3, best.value)
    assert metrics["val_acc"] == max(line["val_acc"] for line in read_metrics(part))
    assert load_config(out / "best" / "config.toml").data.folds == 1
    assert "on the whole train split" in (out / "best" / "retrain.sh").read_text()
    sides = [row.side for row in read_split(out / "best") or []]
    assert (sides.count("train"), sides.count("val"), sides.count("test")) == (72, 36, 12)
    # Judged again, best/ and the part itself find the photographs that the part was validated on.
    for folder in (out / "best", part):
        again = evaluate(folder, split="val")
        assert (again.photographs, again.accuracy, again.trained) == (36, metrics["val_acc"], 0)
    with pytest.raises(
        UserError, match=rf"was trained in parts, its network lies in one of them: give \S+{part.name}$"
    ):
        read_run(part.parent)
    kept = [path.parent.name for path in part.parent.glob("part*/model.safetensors")]
    assert kept == [part.name]
    assert not list(out.rglob("*.pt"))  # of trials that have ended nobody goes on with

    told = summary_lines(played.study, out, out)
    assert told[1].startswith(f"best: trial {best.number}, val_acc {best.value:.4f} ± ")
    assert " over 3 parts (lr " in told[1]
    network = f"the network in best is that of its best part, {part.name}: val_acc {metrics['val_acc']:.4f} there"
    assert network in told
    facts = summary_facts(played.study, out)
    assert facts["best"]["parts"] == 3 and facts["best"]["val_acc_std"] is not None
    text = write_report(out, photographs.cache).read_text(encoding="utf-8")
    assert "Its accuracy is the mean over the 3 parts that it finished" in text
    assert "Best val_acc of each part of the best trials, their mean, and their standard deviation" in text
    assert "Evaluated again for this report" not in text
    assert "120 photographs in 4 classes: 72 for training, 36 for validation, 12 for the test." in text
    assert f"This is the split in {part.name} of the winner" in text


def test_a_search_in_parts_that_goes_on_knows_them(played: Search, photographs: Photographs, tmp_path: Path) -> None:
    before = {trial.number: trial.intermediate_values for trial in played.study.get_trials()}

    again = begun(prepared(photographs, tmp_path / "space.toml", SPACE), played.folder)

    assert {trial.number: trial.intermediate_values for trial in again.study.get_trials()} == before
    assert again.study.user_attrs["part_epochs"] == 2
    best = best_first(again.study)[0].number
    line = again.trial_line(best)
    assert (line.epochs, line.parts, line.epoch, line.best_value) == (6, 3, 6, before[best][6])


def test_a_dry_run_counts_the_parts_and_refuses_folds_of_a_given_split(
    drawn_leaves: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "space.toml").write_text(SPACE)
    flags = ["search", "--space", str(home / "space.toml"), "--dry-run", "--device", "cpu", "--data"]

    assert main([*flags, str(drawn_leaves)]) == 0
    told = capsys.readouterr().out
    assert "pruning steps: after epochs 1, 2, 4 (at each of the last 2 a part ends), the best 1 in 2 continue" in told
    assert "each trial: 3 folds one after another, its value is their mean" in told
    assert "worst case: 3 trials x 3 parts x 2 epochs = 18 epochs, if none is stopped early" in told
    assert (
        "120 photographs, 4 classes: each trial is trained on 3 folds, each with about 72 photographs for "
        "training and 36 for validation; 12 for the test (fewer"
    ) in told
    assert "36 validation photographs: one is" in told

    for side in ("train", "val"):
        shutil.copytree(drawn_leaves, home / "given" / side)
    assert main([*flags, str(home / "given")]) == 2
    assert (
        f"{home / 'given'}: `folds = 3` splits training and validation photographs again, but the folders name the "
        "validation photographs (val): leave folds out, or use replicates"
    ) in " ".join(capsys.readouterr().err.split())
