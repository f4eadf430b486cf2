"""A search that goes by another metric than the accuracy: its journal, pruning, sampler, and what it learns from."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from begun_search import Photographs, begun, prepared
from optuna.trial import create_trial

from tune_cropshield.config.goals import GOALS, VAL_ACC, Goal
from tune_cropshield.config.space import SearchSpace
from tune_cropshield.config.space_file import space_from
from tune_cropshield.errors import UserError
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.earlier import learn, read_past
from tune_cropshield.search.endings import FINISHED, METRIC, OUTCOME, outcome_of
from tune_cropshield.search.flat import outlook
from tune_cropshield.search.folder import save_settings, trial_rows
from tune_cropshield.search.hparams import HParams
from tune_cropshield.search.journal import best_first, note_goal, open_study, read_study, study_goal
from tune_cropshield.search.searcher import StudySearcher
from tune_cropshield.search.trial_settings import distributions
from tune_cropshield.search.views.json_lines import JsonLinesView
from tune_cropshield.search.views.view import SearchView, TrialLine

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
[space]
lr = {log = [1e-4, 1e-2]}
[search]
trials = 4
epochs = 4
grace_epochs = 1
baseline = false
"""
LOSS = GOALS["val_loss"]


def finished(study: optuna.Study, *losses: float) -> None:
    axes = {"lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)}
    for number, loss in enumerate(losses):
        values = {1: loss + 0.5, 2: loss}
        attributes = {OUTCOME: FINISHED}
        study.add_trial(
            create_trial(
                params={"lr": 1e-4 * (number + 1)},
                distributions=axes,
                value=loss,
                intermediate_values=values,
                user_attrs=attributes,
            )
        )


def test_the_journal_minimises_a_loss_and_names_it(tmp_path: Path) -> None:
    study = open_study(tmp_path, goal=LOSS)
    note_goal(study, LOSS)
    finished(study, 0.7, 0.4, 0.5)

    found = read_study(tmp_path)
    assert found.direction == optuna.study.StudyDirection.MINIMIZE
    assert (study_goal(found), found.best_value) == (LOSS, 0.4)
    assert [trial.number for trial in best_first(found)] == [1, 2, 0]


def test_a_journal_of_an_earlier_version_goes_by_the_accuracy(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    finished(study, 0.7, 0.4, 0.5)
    assert study_goal(study) == VAL_ACC
    assert [trial.number for trial in best_first(study)] == [0, 2, 1]


@pytest.fixture
def search(drawn_leaves: Path, shared_cache: Path, tmp_path: Path) -> Any:
    (tmp_path / "out").mkdir()
    space = SPACE + 'metric = "val_loss"\n'
    return begun(prepared(Photographs(drawn_leaves, shared_cache), tmp_path / "space.toml", space), tmp_path / "out")


def test_pruning_stops_those_with_the_higher_loss(search: Any) -> None:
    assert search.steering.judge(0, 1, 0.5, 0.5)  # there is no second yet
    assert search.steering.judge(1, 1, 0.9, 0.9)
    assert not search.steering.judge(2, 1, 0.3, 0.3)  # the best 1 in 2 of three
    assert search.steering.judge(3, 1, 0.4, 0.4) is False  # the best 2 of four
    assert search.steering.judge(4, 1, 0.45, 0.45)


def test_a_search_for_a_loss_reports_it_and_is_resumed_for_it_alone(search: Any, tmp_path: Path) -> None:
    searcher = StudySearcher(search)
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    assert config["run"]["trial"]["metric"] == "val_loss"
    searcher.on_trial_result("a", {"epoch": 1, METRIC: 0.8})
    searcher.on_trial_result("a", {"epoch": 2, METRIC: math.nan})
    assert search.study.trials[0].intermediate_values == {1: 0.8}
    assert outcome_of({OUTCOME: FINISHED, METRIC: math.nan}, LOSS) == ("failed", "it reported no val_loss")


def test_the_sampler_sees_minus_the_loss(drawn_leaves: Path, shared_cache: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import json, optuna\n"
        "class spy(optuna.samplers.RandomSampler):\n"
        "    def __init__(self, seed, num_startup_trials):\n"
        "        super().__init__(seed)\n"
        "    def infer_relative_search_space(self, study, trial):\n"
        f"        with open({str(tmp_path / 'seen.json')!r}, 'w') as file:\n"
        "            json.dump([study.direction.name, [other.value for other in study.trials[:-1]]], file)\n"
        "        return {}\n"
    )
    (tmp_path / "out").mkdir()
    space = SPACE + f'metric = "val_loss"\nsampler = "{tmp_path / "mine.py"}:spy"\n'
    search = begun(prepared(Photographs(drawn_leaves, shared_cache), tmp_path / "space.toml", space), tmp_path / "out")
    finished(search.study, 0.7, 0.4)
    while search.steering.next_trial() is not None and not (tmp_path / "seen.json").exists():
        pass
    assert (tmp_path / "seen.json").read_text() == '["MAXIMIZE", [-0.7, -0.4]]'


def space(metric: str) -> SearchSpace:
    tables = {"trial": {"model": "tiny_cnn", "image_size": 32}, "space": {"lr": {"log": [1e-4, 1e-2]}}}
    return space_from({**tables, "search": {"metric": metric}}, {}, "space.toml")


def earlier(folder: Path, metric: str, *values: float) -> Path:
    folder.mkdir(parents=True)
    save_settings(folder, space(metric), "python -m tune_cropshield search --space search.toml")
    assert list(distributions(space(metric), plan_for_cpu((16, 32)))) == ["lr"]
    study = open_study(folder, goal=GOALS[metric])
    note_goal(study, GOALS[metric])
    finished(study, *values)
    return folder


def test_of_an_earlier_search_for_a_loss_the_lowest_is_the_best(tmp_path: Path) -> None:
    past = read_past(earlier(tmp_path / "runs/a", "val_loss", 0.9, 0.3, 0.6), space("val_loss"))
    assert past.qualities == [1 / 6, 5 / 6, 0.5]


def test_only_searches_for_the_same_metric_are_learnt_from(tmp_path: Path) -> None:
    losses = earlier(tmp_path / "runs/a", "val_loss", 0.9, 0.3)
    accuracies = earlier(tmp_path / "runs/b", "val_acc", 0.9, 0.3)

    knowledge, _ = learn(space("val_acc"), [tmp_path / "runs"])
    assert dict(knowledge.sources) == {str(accuracies): 2}
    assert knowledge.starts == ({"lr": 1e-4},)
    knowledge, _ = learn(space("val_loss"), [tmp_path / "runs"])
    assert dict(knowledge.sources) == {str(losses): 2}
    assert knowledge.starts == ({"lr": 2e-4},)
    with pytest.raises(UserError, match="its trials are judged by val_loss, this search's by val_acc"):
        learn(space("val_acc"), [], [losses])


def test_noise_that_is_given_decides_whether_a_search_is_flat() -> None:
    values = [0.5 + number / 1000 for number in range(20)]
    sure, unsure = outlook(values, 100, noise=0.001), outlook(values, 100, noise=0.2)
    assert sure is not None and not sure.is_flat
    assert unsure is not None and unsure.is_flat and unsure.noise == 0.2


def test_a_table_of_trials_names_the_metric_and_keeps_the_accuracy_of_the_same_epoch(tmp_path: Path) -> None:
    study = open_study(tmp_path, goal=LOSS)
    note_goal(study, LOSS)
    finished(study, 0.4)
    (tmp_path / "t000").mkdir()
    (tmp_path / "t000/metrics.jsonl").write_text(
        '{"epoch": 1, "val_acc": 0.9, "val_loss": 0.9, "metric": "val_loss", "higher_is_better": false}\n'
        '{"epoch": 2, "val_acc": 0.8, "val_loss": 0.4, "metric": "val_loss", "higher_is_better": false}\n'
    )
    row = trial_rows(tmp_path, study)[0]
    assert (row["best_epoch"], row["best_val_loss"], row["best_val_acc"], row["val_loss"]) == (2, 0.4, 0.8, 0.4)


def test_tensorboards_table_begins_with_the_goal(tmp_path: Path) -> None:
    table = HParams(tmp_path, space("val_loss"), plan_for_cpu((16, 32)))
    assert list(table._metrics)[:4] == [
        "validation/val_loss",
        "validation/best_val_loss",
        "validation/best_epoch",
        "validation/best_val_acc",
    ]


def result(epoch: int, loss: float, best: float) -> dict[str, Any]:
    known = {"val_loss": loss, "val_acc": 0.5, "best_val_acc": 0.4, "best_value": best, "best_epoch": epoch}
    return {"epoch": epoch, **known, "images_per_s": 1.0, "peak_vram_mib": 0.0, "part": 0}


def test_the_view_shows_the_lowest_loss_as_the_best() -> None:
    view = SearchView(goal=LOSS)
    for number, loss in enumerate((0.9, 0.3, 0.6)):
        view.trial_started(TrialLine(number, {"lr": 0.1}, "32x1", 4))
        view.epoch_done(number, result(1, loss, loss))
    assert view.best_text() == "best so far: t001 val_loss 0.3000 (lr=0.1)"


def test_programs_are_told_the_goal_beside_the_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    view = JsonLinesView(goal=Goal("score"))
    view.trial_started(TrialLine(0, {"lr": 0.1}, "32x1", 4))
    view.epoch_done(0, {**result(1, 0.9, 0.7), "score": 0.7})
    told = capsys.readouterr().out.splitlines()
    assert '"score": 0.7' in told[1] and '"best_val_acc": 0.4, "best_score": 0.7' in told[1]
    assert told[2] == '{"event": "best", "trial": 0, "epoch": 1, "best_val_acc": 0.4, "best_score": 0.7}'
