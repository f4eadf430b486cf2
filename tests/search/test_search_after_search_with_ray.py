"""A second search, on other photographs, begins with what the first one found: the real command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from optuna.trial import TrialState, create_trial

from tune_cropshield.config.space_file import load_space
from tune_cropshield.data.generated import draw_leaves
from tune_cropshield.memory.choose.pairs import plan_for_cpu
from tune_cropshield.search.folder import save_settings
from tune_cropshield.search.journal import open_study, read_study
from tune_cropshield.search.trial_settings import distributions

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]  # a busy machine may take a minute to start Ray

SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
augment = "none"
schedule = "onecycle"
[space]
lr = {log = [1e-5, 1e-1]}
effective_batch = {choice = [16, 32]}
[baseline]
[search]
trials = 2
epochs = 2
[[start]]
lr = 1e-3
"""
WINNER = {"lr": 7e-3, "effective_batch": 16}


def test_the_second_search_begins_with_the_winner_of_the_first(home: Path) -> None:
    (home / "space.toml").write_text(SPACE)
    space, first = load_space(home / "space.toml"), home / "runs" / "first"
    first.mkdir(parents=True)
    save_settings(first, space, "again")
    axes, study = distributions(space, plan_for_cpu((16, 32))), open_study(first)
    for parameters, accuracy in (({"lr": 1e-3, "effective_batch": 32}, 0.4), (WINNER, 0.9)):
        study.add_trial(
            create_trial(
                params=parameters,
                distributions=axes,
                state=TrialState.COMPLETE,
                value=accuracy,
                intermediate_values={1: accuracy},
                user_attrs={"outcome": "finished"},
            )
        )
    leaves, second = draw_leaves(home / "others", classes=3, per_class=20, image_size=40), home / "runs" / "second"
    given = ["--space", str(home / "space.toml"), "--data", str(leaves), "--out", str(second), "--device", "cpu"]

    done = subprocess.run(
        [sys.executable, "-m", "tune_cropshield", "search", *given],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HOME": str(home)},  # Ray's secret is there
    )

    told = done.stdout
    assert done.returncode == 0, done.stderr
    assert f"learning from 1 earlier search ({first}; 2 trials); tried first: lr 0.007, effective_batch 16" in told
    assert [trial.params for trial in read_study(second).get_trials()] == [{"lr": 1e-4, "effective_batch": 32}, WINNER]
    assert json.loads((second / "learned_from.json").read_text())["sources"] == {str(first): 2}
    again = f"search --space {second / 'search.toml'} --learn-from {first}\n"
    assert again in (second / "search.toml").read_text()
