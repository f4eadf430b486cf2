"""The guide's recommendations and its command line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from random_settings import trial_configs

from tune_cropshield.config import TrialConfig
from tune_cropshield.guide import parse_train_py, recommended, train_py_command


@given(trial_configs())
@settings(max_examples=200)
def test_the_exported_command_is_read_back_as_the_same_settings(trial: TrialConfig) -> None:
    read = parse_train_py(train_py_command(trial))

    micro_batch, accumulation = trial.pair
    assert read == {
        "model": trial.model,
        "micro_batch": micro_batch,
        "accumulation": accumulation,
        "effective_batch": trial.effective_batch,
        "epochs": trial.epochs,
        "lr": trial.lr,
        "weight_decay": trial.weight_decay,
        "schedule": trial.schedule,
        "warmup_epochs": trial.warmup_epochs,
        "max_norm": trial.max_norm,
        "amp": trial.precision != "fp32",
    }


def test_the_exported_command_is_the_guides_own() -> None:
    trial = TrialConfig(model="cropshield_cnn", effective_batch=32, micro_batch=16, accumulation=2, max_norm=1.0)

    assert train_py_command(trial) == (
        "python train.py --model custom --batch_size 16 --accumulation_steps 2 --epochs 25 --lr 0.0001 --weight_decay 0.0001 "
        "--scheduler plateau --warmup_epochs 1 --amp True --clip_grad_norm 1.0"
    )


def test_mixed_precision_that_is_off_is_left_out_of_the_command() -> None:
    assert "--amp" not in train_py_command(TrialConfig(model="tiny_cnn", precision="fp32"))


@pytest.mark.parametrize(
    ("trial", "advice"),
    [
        (TrialConfig(model="tiny_cnn"), {"lr": 1e-4, "weight_decay": 1e-4, "max_norm": "none", "effective_batch": 32}),
        (TrialConfig(model="efficientnet_b0"), {"lr": 1e-4, "weight_decay": 1e-4, "max_norm": "none", "effective_batch": 32}),
        (TrialConfig(model="resnet50", optimizer="sgd"), {"lr": 0.1, "weight_decay": 1e-4, "max_norm": 1.0, "effective_batch": 64}),
    ],
)
def test_the_guide_recommends_what_it_writes(trial: TrialConfig, advice: dict[str, object]) -> None:
    assert recommended(trial) == advice
