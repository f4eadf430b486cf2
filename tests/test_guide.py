"""The guide's recommendations and its command line."""

from __future__ import annotations

from tune_cropshield.config.reference import train_py_command
from tune_cropshield.config.settings import TrialConfig


def test_the_exported_command_is_the_guides_own() -> None:
    trial = TrialConfig(model="cropshield_cnn", effective_batch=32, micro_batch=16, accumulation=2, max_norm=1.0)

    assert train_py_command(trial) == (
        "python train.py --model custom --batch_size 16 --accumulation_steps 2 --epochs 25 --lr 0.0001 "
        "--weight_decay 0.0001 "
        "--scheduler plateau --warmup_epochs 1 --amp True --clip_grad_norm 1.0"
    )


def test_mixed_precision_that_is_off_is_left_out_of_the_command() -> None:
    assert "--amp" not in train_py_command(TrialConfig(model="tiny_cnn", precision="fp32"))
