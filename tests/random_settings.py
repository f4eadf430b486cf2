"""Random valid configurations for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tune_cropshield.config.settings import DataConfig, RunConfig, TrialConfig

POSITIVE = st.floats(min_value=1e-12, max_value=1e6)
SHARE = st.floats(min_value=0, max_value=0.99)
SIDES = st.integers(16, 1024)
FILE_TEXT = st.text(st.characters(codec="utf-8", min_codepoint=32), max_size=20)
MODELS = ["tiny_cnn", "cropshield_cnn", "efficientnet_b0", "resnet18", "resnet34", "resnet50"]


@st.composite
def trial_configs(draw: st.DrawFn) -> TrialConfig:
    """Draws settings that differ from the defaults anywhere."""
    mixes = draw(st.booleans())
    micro = draw(st.integers(1, 64)) * (2 if mixes else 1)
    accumulation = draw(st.integers(1, 16))
    pair = draw(st.sampled_from([{}, {"micro_batch": micro}, {"micro_batch": micro, "accumulation": accumulation}]))
    clipping = draw(st.sampled_from([None, "max_norm", "clip_value", "agc"]))
    optimizer = draw(st.sampled_from(["adamw", "sgd"]))
    schedule = draw(st.sampled_from(["onecycle", "plateau", "cosine", "step", "constant"]))
    loss = draw(st.sampled_from(["cross_entropy", "focal", "bi_tempered"]))
    class_weights = draw(st.sampled_from(["none", "balanced", "effective"]))
    epochs, frozen = draw(st.integers(1, 1000)), draw(st.booleans())
    values: dict[str, Any] = {
        "model": draw(st.sampled_from(MODELS)),
        "pretrained": draw(st.one_of(st.just(False), FILE_TEXT)),
        "freeze_backbone": frozen,
        "dropout": draw(st.one_of(st.none(), SHARE)),
        "image_size": draw(SIDES),
        "progressive_sizes": draw(st.dictionaries(st.integers(0, 30), SIDES, max_size=3)),
        "augment": draw(st.sampled_from(["none", "conservative", "moderate", "aggressive"])),
        "effective_batch": micro * accumulation,
        **pair,
        "eval_batch": draw(st.one_of(st.none(), st.integers(1, 512))),
        "label_smoothing": draw(SHARE),
        "loss": loss,
        "class_weights": class_weights,
        "sampling": draw(st.sampled_from(["plain", "balanced"])),
        "optimizer": optimizer,
        "lr": draw(POSITIVE),
        "weight_decay": draw(st.one_of(st.just(0.0), POSITIVE)),
        "schedule": schedule,
        "warmup_epochs": draw(st.floats(0, 10)),
        "epochs": epochs,
        "early_stopping": draw(st.integers(0, 50)),
        "ema": draw(SHARE),
        "precision": draw(st.sampled_from(["auto", "fp16", "bf16", "fp32"])),
        "channels_last": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**32 - 1)),
        "threads": draw(st.one_of(st.none(), st.integers(1, 64))),
    }
    if mixes:
        values |= {"mixup": draw(POSITIVE), "cutmix": draw(POSITIVE)}
    if clipping is not None:
        values[clipping] = draw(POSITIVE)
    if not frozen:
        values |= {"unfreeze_epochs": draw(st.integers(0, epochs - 1))}
        values |= {name: draw(st.floats(0.01, 1)) for name in ("backbone_lr_factor", "layer_decay")}
    if optimizer == "sgd":
        values["momentum"] = draw(SHARE)
    if schedule == "plateau":
        values |= {"plateau_patience": draw(st.integers(0, 20)), "plateau_factor": draw(st.floats(0.01, 0.99))}
    if loss == "focal":
        values["focal_gamma"] = draw(st.floats(0, 10))
    if loss == "bi_tempered":
        values |= {"tempered_t1": draw(st.floats(0, 1)), "tempered_t2": draw(st.floats(1, 4))}
    if class_weights == "effective":
        values["effective_beta"] = draw(SHARE)
    if schedule == "step":
        values |= {"step_epochs": draw(st.integers(1, 20)), "step_factor": draw(st.floats(0.01, 0.99))}
    return TrialConfig(**values)


@st.composite
def run_configs(draw: st.DrawFn) -> RunConfig:
    """Draws a whole config.toml."""
    folds = draw(st.integers(1, 50))
    data = DataConfig(
        folds=folds,
        fold=draw(st.integers(0, folds - 1)),
        dir=draw(FILE_TEXT),
        val_share=draw(st.floats(0.01, 0.45)),
        test_share=draw(st.floats(0.01, 0.45)),
        split_seed=draw(st.integers(0, 2**32 - 1)),
        max_bad_share=draw(st.floats(0, 1)),
    )
    return RunConfig(data=data, trial=draw(trial_configs()))
