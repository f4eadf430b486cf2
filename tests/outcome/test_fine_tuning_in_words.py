"""How the head and the rest of a network are trained apart, as it is told by the commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.cli import main
from tune_cropshield.outcome.settings_in_words import fine_tuning

ALONE = "the head (the last layer) trains alone for 1 epoch"
SLOWER = "the rest of the network learns at 0.5 times the learning rate"
SPACE = """
[trial]
model = "tiny_cnn"
image_size = 32
unfreeze_epochs = 1
[space]
lr = {log = [1e-4, 1e-2]}
backbone_lr_factor = {uniform = [0.6, 1.0]}
label_smoothing = {choice = [0.0, 0.1]}
[search]
trials = 2
epochs = 4
"""


@pytest.mark.parametrize(
    ("trial", "told"),
    [
        ({}, ""),
        ({"unfreeze_epochs": 0, "backbone_lr_factor": 1.0, "layer_decay": 1, "freeze_backbone": False}, ""),
        ({"freeze_backbone": True}, "only the head (the last layer) trains"),
        ({"unfreeze_epochs": 3}, "the head (the last layer) trains alone for 3 epochs"),
        (
            {"unfreeze_epochs": 1, "backbone_lr_factor": 0.5, "layer_decay": 0.75},
            f"{ALONE}; {SLOWER}; each block learns at 0.75 times the rate of the block after it",
        ),
    ],
)
def test_each_way_is_told_and_nothing_where_all_learns_alike(trial: dict[str, Any], told: str) -> None:
    assert fine_tuning(trial) == told


def test_a_dry_run_tells_it_and_lines_up_long_names(
    home: Path, drawn_leaves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "space.toml").write_text(SPACE)
    command = ["search", "--data", str(drawn_leaves), "--space", str(home / "space.toml"), "--device", "cpu"]
    assert main([*command, "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert ALONE in printed
    at = printed.index("searched:")
    assert printed[at + 1 : at + 4] == [
        "  lr                 0.0001 to 0.01, logarithmic",
        "  backbone_lr_factor 0.6 to 1",
        "  label_smoothing    one of 0.0, 0.1",
    ]
    assert "pruning steps: after epochs 2, the best 1 in 2 continue" in printed


def test_a_training_tells_it_before_its_first_epoch(
    home: Path, drawn_leaves: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = '[trial]\nmodel = "tiny_cnn"\nimage_size = 32\nepochs = 2\nunfreeze_epochs = 1\nbackbone_lr_factor = 0.5\n'
    (home / "config.toml").write_text(text)
    command = ["train", "--config", str(home / "config.toml"), "--data", str(drawn_leaves), "--out", str(home / "run")]
    assert main([*command, "--device", "cpu"]) == 0
    told = capsys.readouterr()
    printed = (told.out + told.err).splitlines()
    assert printed.index(f"{ALONE}; {SLOWER}") < min(at for at, line in enumerate(printed) if line.startswith("epoch "))
