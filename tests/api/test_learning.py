"""From which searches a new one learns, as it is said by arguments and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState, create_trial

import tune_cropshield as tc
from tune_cropshield.api.dry_run import dry_run
from tune_cropshield.api.space import known_before, new_space
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.folder import save_settings
from tune_cropshield.search.journal import open_study
from tune_cropshield.search.trial_settings import distributions

TABLES: dict[str, Any] = {"trial": {"model": "tiny_cnn", "image_size": 32}, "space": {"lr": {"log": [1e-5, 1e-1]}}}


def searched(folder: Path) -> str:
    """Writes a search whose best learning rate is 5e-3."""
    folder.mkdir(parents=True)
    space = new_space({"space": TABLES})
    save_settings(folder, space, "again")
    axes, study = distributions(space, plan_for_cpu((32,))), open_study(folder)
    for lr, value in ((1e-4, 0.3), (5e-3, 0.8), (5e-2, 0.1)):
        study.add_trial(
            create_trial(
                params={"lr": lr},
                distributions=axes,
                state=TrialState.COMPLETE,
                value=value,
                intermediate_values={1: value},
                user_attrs={"outcome": "finished"},
            )
        )
    return str(folder)


def sources(given: dict[str, Any], out: str = "results/runs/new") -> list[str]:
    return list(known_before(new_space({"space": TABLES}), given, Path(out))[0].sources)


def test_searches_in_results_and_beside_the_new_one_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, beside = searched(tmp_path / "results" / "runs" / "a"), searched(tmp_path / "mine" / "b")

    assert sources({}) == [run]
    assert sorted(sources({}, "mine/new")) == sorted([run, beside])
    assert sources({"from_scratch": True}, "mine/new") == []
    assert sources({"learn_from": "mine/b"}) == [beside]
    assert sources({"learn_from": [Path("mine/b"), "results/runs/a"]}) == [beside, run]


def test_a_dry_run_says_what_would_be_learnt_and_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    searched(tmp_path / "results" / "runs" / "a")

    planned = dry_run({"space": TABLES, "device": "cpu"})

    assert planned.notes[0].startswith("there is no reference setting for tiny_cnn")
    assert planned.notes[1:] == [
        "learning from 1 earlier search (results/runs/a; 3 trials); tried first: lr 0.005 (--from-scratch turns "
        "this off)"
    ]
    assert [start["lr"] for start in planned.starts] == [5e-3, 1e-3, 3e-3, 4e-4]


def test_learning_from_named_searches_and_from_none_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(tc.UserError, match=r"^--from-scratch learns from no search: leave it out, or --learn-from$"):
        tc.search(space=TABLES, learn_from=tmp_path, from_scratch=True, out=tmp_path / "out")


def test_a_search_that_is_gone_on_with_does_not_learn_again(tmp_path: Path) -> None:
    folder = searched(tmp_path / "a")
    with pytest.raises(tc.UserError) as told:
        tc.search(learn_from=[tmp_path], out=folder, resume=True, progress=False)
    assert str(told.value) == (
        f"{folder} was begun with other settings: learn_from (nothing then, {tmp_path} now). To continue it, leave "
        "out --learn-from; or start a new search with another --out"
    )
