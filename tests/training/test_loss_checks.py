"""What is told of a user's own loss that cannot be trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.config.space_file import load_space
from tune_cropshield.errors import ConfigError
from tune_cropshield.search.prepare import check_losses
from tune_cropshield.training.loss_checks import check_loss

OWN = '''
import torch
from torch import nn
from torch.nn import functional as F
from tune_cropshield.training.losses import SampleLoss

class Good(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        loss_B = F.cross_entropy(logits_BK, labels_B, reduction="none", label_smoothing=self.label_smoothing)
        return self.weighted(loss_B, labels_B)

class Mean(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        return F.cross_entropy(logits_BK, labels_B)

class Nan(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        return (logits_BK.amax(1) - 1e6).log()

class NanGradient(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        return (logits_BK[:, 0] * 0).sqrt() + 1

class Detached(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        return (logits_BK.argmax(1) != labels_B).float()

class Numbers(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        return [1.0] * len(labels_B)

class NeedsMore(SampleLoss):
    def __init__(self, class_weights_K, label_smoothing, gamma):
        super().__init__(class_weights_K, label_smoothing)

class Empty(SampleLoss):
    pass

class Raises(SampleLoss):
    def __init__(self, class_weights_K, label_smoothing):
        raise KeyError("mine")

class Unweighted(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        return F.cross_entropy(logits_BK, labels_B, reduction="none")

class OfItsMean(SampleLoss):
    def per_sample(self, logits_BK, labels_B):
        loss_B = F.cross_entropy(logits_BK, labels_B, reduction="none")
        return loss_B / loss_B.mean().detach()

class OwnSum(Unweighted):
    def sum(self, logits_BK, targets):
        return F.cross_entropy(logits_BK, targets.labels_B)

class OfFive(SampleLoss):
    """Made for five classes."""
    def per_sample(self, logits_BK, labels_B):
        return F.cross_entropy(logits_BK * torch.ones(5), labels_B, reduction="none")

def function(logits, labels):
    return F.cross_entropy(logits, labels)

number = 3
'''


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN, encoding="utf-8")
    return path


@pytest.mark.parametrize("num_classes", [None, 2, 5])
@pytest.mark.parametrize(
    ("name", "told"),
    [
        (
            "Mean",
            r"per_sample of 8 samples and \d classes must give a loss for each, shape \(8,\), but gives shape \(\)",
        ),
        ("Numbers", r"must give a loss for each, shape \(8,\), but gives a value of type list"),
        ("Nan", r"must give finite losses, but gives \[nan, nan"),
        ("NanGradient", "must have a finite gradient, but has one with NaN or infinity"),
        ("Detached", "must have a gradient, but has none: without detach, argmax or no_grad it has"),
        ("OfItsMean", "a sample's loss must not depend on the samples beside it, as micro-batches are of any size"),
        ("OwnSum", "sum must give the sum of per_sample over the micro-batch: leave it out, SampleLoss has one"),
        ("NeedsMore", "the label smoothing alone, but it cannot be: missing a required argument: 'gamma'"),
        ("Empty", r"Empty defines no per_sample\(self, logits_BK, labels_B\)"),
        ("Raises", r"failed with KeyError: 'mine' \(.*own.py, line \d+\); a loss is a class made from"),
        (
            "function",
            r"failed with TypeError: .*; a loss is a class made from tune_cropshield.training.losses.SampleLoss",
        ),
        ("nn.CrossEntropyLoss", "a loss is a class made from .*SampleLoss, but this is <class 'torch.nn"),
        ("number", "a loss is a class made from .*SampleLoss, but this is 3"),
    ],
)
def test_a_loss_that_cannot_be_trained_with_is_told_by_its_rule(
    own: Path, name: str, told: str, num_classes: int | None
) -> None:
    if "." in name:
        own.write_text(f"{OWN}\nfound = {name}\n", encoding="utf-8")
        name = "found"
    with pytest.raises(ConfigError, match=f"loss '.*{name}'.* {told}"):
        check_loss(TrialConfig(loss=f"{own}:{name}"), num_classes)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"class_weights": "effective"}, r'the settings have class_weights = "effective", but it does not'),
        ({"label_smoothing": 0.1}, r"passes over label_smoothing = 0.1: let it use self.label_smoothing, or set that"),
    ],
)
def test_a_loss_that_passes_over_what_is_set_is_told(own: Path, settings: dict[str, Any], told: str) -> None:
    check_loss(TrialConfig(loss=f"{own}:Good", **settings), 4)
    check_loss(TrialConfig(loss=f"{own}:Unweighted"), 4)
    with pytest.raises(ConfigError, match=told):
        check_loss(TrialConfig(loss=f"{own}:Unweighted", **settings), 4)


def test_a_loss_made_for_a_number_of_classes_is_judged_once_that_is_known(own: Path) -> None:
    check_loss(TrialConfig(loss=f"{own}:OfFive"), None)
    check_loss(TrialConfig(loss=f"{own}:OfFive"), 5)
    with pytest.raises(ConfigError, match=r"failed with RuntimeError: The size of tensor a \(4\)"):
        check_loss(TrialConfig(loss=f"{own}:OfFive"), 4)


def test_every_loss_that_is_searched_is_looked_at(own: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    losses = f'["cross_entropy", "{own}:Good", "{own}:Mean"]'
    space.write_text(f'[trial]\nmodel = "tiny_cnn"\nimage_size = 32\n[space]\nloss = {{choice = {losses}}}\n')
    with pytest.raises(ConfigError, match=r"own.py:Mean': per_sample of 8 samples and 3 classes"):
        check_losses(load_space(space))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"focal_gamma": 1.0}, 'focal_gamma is only used with loss = "focal", but loss is "cross_entropy"'),
        (
            {"tempered_t1": 0.5, "loss": "focal"},
            'tempered_t1 is only used with loss = "bi_tempered", but loss is "focal"',
        ),
        (
            {"effective_beta": 0.9, "class_weights": "balanced"},
            'effective_beta is only used with class_weights = "effec',
        ),
        ({"focal_gamma": 1.0, "loss": "{own}:Good"}, 'focal_gamma is only used with loss = "focal", but loss is "'),
    ],
)
def test_an_option_of_another_loss_is_not_silently_left_out(own: Path, settings: dict[str, Any], told: str) -> None:
    values = {name: value.format(own=own) if name == "loss" else value for name, value in settings.items()}
    with pytest.raises(ValueError) as error:
        TrialConfig.model_validate(values)
    assert told in str(error.value)
