"""Settings: what is refused, in which words, and that nothing is lost between a configuration and its file."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from random_settings import run_configs

from tune_cropshield.config.settings import RunConfig, TrialConfig, load_config, save_config
from tune_cropshield.errors import ConfigError


def faults(folder: Path, text: str | bytes, overrides: dict[str, dict[str, Any]] | None = None) -> list[str]:
    """Returns what is said of a config.toml of this content, without its path."""
    path = folder / "config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as error:
        load_config(path, overrides)
    return [fault.replace(f"{path}: ", "") for fault in error.value.faults]


@given(run_configs())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_saved_configuration_is_read_back_unchanged(tmp_path: Path, config: RunConfig) -> None:
    save_config(config, tmp_path / "config.toml")

    assert load_config(tmp_path / "config.toml") == config


def test_every_fault_of_a_file_is_told_at_once_with_its_key(tmp_path: Path) -> None:
    text = """
        [data]
        val_share = 0.6
        test_share = 0.6
        [trial]
        lr = "1e-4"
        augmnt = "none"
        effective_batch = 32
        micro_batch = 5
        accumulation = 4
        max_norm = 1.0
        agc = 0.1
        step_epochs = 3
    """

    assert [fault.partition("; known here")[0] for fault in faults(tmp_path, text)] == [
        'trial.lr: must be a number, but got "1e-4"',
        "trial.augmnt: unknown key; did you mean augment? known here: " + ", ".join(TrialConfig.model_fields),
        "data: `val_share + test_share < 1` must hold, but got 0.6 + 0.6",
        "trial: at most one kind of clipping can be on, but got max_norm and agc",
        "trial: `micro_batch * accumulation == effective_batch` must hold, but got 5 * 4 != 32",
        'trial: step_epochs is only used with schedule = "step", but schedule is "plateau"',
    ]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("max_norm = -1", 'max_norm: must be a number above 0 or "none", but got -1'),
        ('max_norm = "no"', 'max_norm: must be a number above 0 or "none", but got "no"'),
        ("max_norm = nan", 'max_norm: must be a number above 0 or "none", but got NaN'),
        ("max_norm = inf", 'max_norm: must be a number above 0 or "none", but got Infinity'),
        ("pretrained = 3", "pretrained: must be true, false or the path of a state dict, but got 3"),
        ("lr = nan", "lr: must be finite, but got NaN"),
        ("lr = inf", "lr: must be finite, but got Infinity"),
        ("lr = 0", "lr: must be above 0, but got 0"),
        ("lr = 1979-05-27", "lr: must be a number, but got 1979-05-27"),
        ("lr = [1e-4]", "lr: must be a number, but got [0.0001]"),
        ("dropout = 1", "dropout: must be below 1, but got 1"),
        ("epochs = 0", "epochs: must be at least 1, but got 0"),
        ("epochs = 2.5", "epochs: must be a whole number, but got 2.5"),
        ("epochs = true", "epochs: must be a whole number, but got true"),
        (
            "epochs = 123456789012345678901234567890",
            "epochs: must be at most 100000, but got 123456789012345678901234567890",
        ),
        ("seed = -1", "seed: must be at least 0, but got -1"),
        ("seed = 4294967296", "seed: must be below 4.29497e+09, but got 4294967296"),
        ("image_size = 3", "image_size: must be at least 16, but got 3"),
        ("channels_last = 1", "channels_last: must be true or false, but got 1"),
        (
            'schedule = "linear"',
            "schedule: no schedule is called 'linear'. Known: onecycle, plateau, cosine, step, constant; "
            "your own is written as file.py:name or package.module:name",
        ),
        (
            'augment = "strong"',
            "augment: must be one of 'none', 'conservative', 'moderate' or 'aggressive', but got \"strong\"",
        ),
        ('progressive_sizes = {"x" = 64}', 'progressive_sizes: must be a whole number, but got "x"'),
        ('progressive_sizes = {"05" = 64}', 'progressive_sizes: must be a whole number, but got "05"'),
        ('progressive_sizes = {"5" = 3}', "progressive_sizes.5: must be at least 16, but got 3"),
        ("progressive_sizes = 3", "progressive_sizes: must be a table, but got 3"),
        (
            'model = "tiny_cnn"\npretrained = true',
            "tiny_cnn has no published weights: set pretrained = false or give a file",
        ),
        ("accumulation = 64", "`accumulation` must divide effective_batch, but got 64 and 32"),
        (
            "mixup = 0.2\neffective_batch = 15",
            "mixup and cutmix mix pairs of images, so micro_batch and effective_batch must be even, but got 15 and 15",
        ),
    ],
)
def test_a_wrong_value_is_told_in_one_sentence(tmp_path: Path, line: str, told: str) -> None:
    found = faults(tmp_path, f"[trial]\n{line}\n")

    assert [fault.removeprefix("trial.").removeprefix("trial: ") for fault in found] == [told]


def test_an_unknown_model_is_told_with_the_known_ones(tmp_path: Path) -> None:
    (told,) = faults(tmp_path, '[trial]\nmodel = "resnt50"\n')

    assert told.startswith("trial.model: unknown model 'resnt50'; did you mean resnet50")
    assert (
        "known: tiny_cnn, cropshield_cnn, efficientnet_b0, resnet18, resnet34, resnet50, any other "
        "torchvision classifier ("
    ) in told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("trial = 3", "trial: must be a table, but got 3"),
        ("[[trial]]", "trial: must be a table, but got [{}]"),
        ("[space]", "space: unknown key; known here: data, trial"),
        ("a = 1\na = 2", "not valid TOML: Cannot overwrite a value (at end of document)"),
        ("lr = ", "not valid TOML: Invalid value (at end of document)"),
        (b"\xff\xfe\x00\x01binary junk", "is not a text file (not UTF-8)"),
        ("x = " + "[" * 5000, "not valid TOML: maximum recursion depth exceeded"),
        ('"a\\nb" = 1', '"a\\nb": unknown key; known here: data, trial'),
    ],
)
def test_a_file_of_the_wrong_form_is_told_in_one_line(tmp_path: Path, content: str | bytes, told: str) -> None:
    (found,) = faults(tmp_path, content)

    assert found.startswith(told)
    assert "\n" not in found


def test_a_number_of_thousands_of_digits_is_no_crash(tmp_path: Path) -> None:
    (found,) = faults(tmp_path, "[trial]\nseed = " + "1" * 5000)

    assert found.startswith("not valid TOML: Exceeds the limit")


def test_a_byte_order_mark_is_read_over(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_bytes(b"\xef\xbb\xbf[trial]\nepochs = 3\n")

    assert load_config(tmp_path / "config.toml").trial.epochs == 3


def test_a_value_given_as_a_flag_is_told_under_the_flag(tmp_path: Path) -> None:
    assert faults(tmp_path, "[trial]\nlr = 0\n", {"trial": {"epochs": 0}}) == [
        "trial.lr: must be above 0, but got 0",
        "--epochs: must be at least 1, but got 0",
    ]


def test_a_default_that_nobody_gave_is_not_found_at_fault(tmp_path: Path) -> None:
    text = '[trial]\neffective_batch = "x"\nmicro_batch = 20\naccumulation = 2\n'

    assert faults(tmp_path, text) == ['trial.effective_batch: must be a whole number, but got "x"']


@given(
    st.dictionaries(
        st.sampled_from(sorted(TrialConfig.model_fields)),
        st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()),
    )
)
def test_settings_built_in_code_are_checked_by_the_same_rules(values: dict[str, Any]) -> None:
    try:
        trial = TrialConfig.model_validate(values)
    except ValidationError:
        return
    assert trial.pair[0] * trial.pair[1] == trial.effective_batch


def test_every_fault_survives_the_way_to_another_process() -> None:
    told = pickle.loads(pickle.dumps(ConfigError(["lr: must be positive", "epochs: must be whole"])))
    assert told.faults == ("lr: must be positive", "epochs: must be whole")
