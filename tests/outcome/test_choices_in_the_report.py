"""The report of a search of several networks and optimizers: a table of each choice, charts without what is absent."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from tune_cropshield.config.space_file import space_from
from tune_cropshield.outcome.report import families, parameters
from tune_cropshield.outcome.report.page import Chart, Table, Text
from tune_cropshield.outcome.report.search_record import SearchRecord, TrialRecord
from tune_cropshield.outcome.settings_in_words import searched
from tune_cropshield.search.endings import FINISHED, OUTCOME, PRUNED
from tune_cropshield.search.journal import quiet_optuna

TABLES = tomllib.loads("""
    [space]
    model = {choice = ["tiny_cnn", "resnet18"]}
    optimizer = {choice = ["adamw", "sgd"]}
    lr = {log = [1e-4, 1e-2]}
    max_norm = {choice = ["none", 1.0]}
    [space.when.optimizer.sgd]
    lr = {log = [1e-3, 0.1]}
    momentum = {uniform = [0.8, 0.9]}
""")


def record(trials: int) -> SearchRecord:
    """A search whose trials have adamw and sgd by turns; every third has resnet18, and every fifth was pruned."""
    study = optuna.create_study(direction="maximize")
    records = []
    for number in range(trials):
        sgd, model = number % 2 == 1, "resnet18" if number % 3 == 0 else "tiny_cnn"
        lists: dict[str, BaseDistribution] = {
            "model": CategoricalDistribution(("tiny_cnn", "resnet18")),
            "optimizer": CategoricalDistribution(("adamw", "sgd")),
            "max_norm": CategoricalDistribution(("none", 1.0)),
            "lr": FloatDistribution(*((1e-3, 0.1) if sgd else (1e-4, 1e-2)), log=True),
        }
        values: dict[str, Any] = {"model": model, "optimizer": "sgd" if sgd else "adamw", "max_norm": 1.0, "lr": 2e-3}
        values["lr"] *= 1 + number / 20
        if sgd:
            lists["momentum"], values["momentum"] = FloatDistribution(0.8, 0.9), 0.8 + number / 1000
        pruned, accuracy = number % 5 == 4, round(0.5 + number / 100, 2)
        study.add_trial(
            create_trial(
                state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
                value=None if pruned else accuracy,
                params=values,
                distributions=lists,
                intermediate_values={1: accuracy},
                user_attrs={OUTCOME: PRUNED if pruned else FINISHED},
            )
        )
        line = {"epoch": 1, "val_acc": accuracy, "val_loss": 1.0, "epoch_s": 2.0 if model == "tiny_cnn" else 7.0}
        records.append(TrialRecord(study.trials[-1], Path(f"t{number:03d}"), [line], [], None))
    space = space_from(TABLES, {}, "s.toml")
    best = max(records, key=lambda trial: trial.accuracy or 0.0)
    return SearchRecord(Path("search"), study, space, None, [], records, best, None)


def test_each_choice_of_words_has_a_table_of_its_trials() -> None:
    section = families.section(record(6))
    assert section is not None
    tables = [block for block in section.blocks if isinstance(block, Table)]
    assert [table.caption for table in tables] == ["The trials by model", "The trials by optimizer"]
    assert tables[0].header == (
        *("model", "trials", "finished", "pruned", "best val_acc", "of trial", "median", "seconds per epoch"),
    )
    assert tables[0].rows == [
        ("tiny_cnn", "4", "3", "1", "0.5500", "5", "0.5300", "2"),
        ("resnet18", "2", "2", "0", "0.5300", "3", "0.5150", "7"),
    ]
    assert tables[0].highlighted == {0}
    assert any(isinstance(block, Text) and "after equal numbers of epochs" in block.text for block in section.blocks)


def test_a_search_without_such_choices_has_no_such_section() -> None:
    found = record(4)
    for trial in found.trials:
        for name in ("model", "optimizer"):
            del trial.frozen.params[name]
    assert families.section(found) is None


def test_charts_of_parameters_pass_by_what_a_trial_does_not_have() -> None:
    with quiet_optuna():
        section = parameters.section(record(30))
    charts = {block.title: block for block in section.blocks if isinstance(block, Chart)}
    assert list(charts) == ["Parallel coordinates", "Importances", "lr", "max_norm", "model", "optimizer", "momentum"]
    lines = [trace for trace in charts["Parallel coordinates"].figure.data if trace.mode == "lines"]
    places = [trace.y[-1] for trace in lines]
    assert len(lines) == 30
    assert places.count(None) == 15  # those with adamw
    assert all(trace.connectgaps for trace in lines)
    assert set(charts["Importances"].figure.data[0].y) == {"lr", "max_norm", "model", "optimizer", "momentum"}
    assert sum(x is not None for trace in charts["momentum"].figure.data for x in trace.x) == 15
    assert sum(x is not None for trace in charts["lr"].figure.data for x in trace.x) == 30


def test_ranges_of_a_choices_own_are_told_under_its_name() -> None:
    assert searched(TABLES) == {
        "model": "one of tiny_cnn, resnet18",
        "optimizer": "one of adamw, sgd",
        "lr": "0.0001 to 0.01, logarithmic",
        "max_norm": "one of none, 1.0",
        "when.optimizer.sgd.lr": "0.001 to 0.1, logarithmic",
        "when.optimizer.sgd.momentum": "0.8 to 0.9",
    }


@pytest.mark.parametrize("damaged", [{"space": {"when": 3}}, {"space": {"when": {"optimizer": 3}}}, {"space": 3}])
def test_a_damaged_table_of_ranges_is_no_range(damaged: dict[str, Any]) -> None:
    assert searched(damaged) == {}
