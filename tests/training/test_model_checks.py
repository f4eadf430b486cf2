"""What is asked of a network before anything is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tune_cropshield as tc
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.errors import ConfigError, DeviceError
from tune_cropshield.training.model_checks import check_network, check_sizes, smallest_micro_batch
from tune_cropshield.training.models import build_model


def test_a_network_that_computes_its_widths_with_tensors_is_asked_too() -> None:
    check_sizes("regnet_y_400mf", (32, 64))
    with pytest.raises(ConfigError, match="image_size: alexnet cannot take pictures of 16 px"):
        check_sizes("alexnet", (16,))


@pytest.mark.parametrize(
    ("model", "image_size", "freeze_backbone", "smallest"),
    [
        ("resnet18", 32, False, 2),  # its last batch norms see one pixel
        ("resnet18", 64, False, 1),
        ("resnet18", 32, True, 1),  # they keep their statistics
        ("convnext_tiny", 32, False, 1),  # no batch norm
        ("tiny_cnn", 16, False, 1),
    ],
)
def test_a_single_image_can_be_trained_on_where_no_batch_norm_sees_a_single_number(
    model: str, image_size: int, freeze_backbone: bool, smallest: int
) -> None:
    trial = TrialConfig(model=model, image_size=image_size, freeze_backbone=freeze_backbone)
    assert smallest_micro_batch(trial) == smallest


def test_asking_a_network_of_ones_own_leaves_torchs_generator_as_it_was(tmp_path: Path) -> None:
    """It is asked while a trial is under way, when memory has run out."""
    code = """
from torch import nn

class Pooled(nn.Sequential):
    def __init__(self, num_classes):
        norm = nn.BatchNorm1d(8)
        super().__init__(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), norm, nn.Linear(8, num_classes))
"""
    (tmp_path / "pooled.py").write_text(code, encoding="utf-8")
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    assert smallest_micro_batch(TrialConfig(model=f"{tmp_path / 'pooled.py'}:Pooled", image_size=32)) == 2
    assert torch.equal(torch.rand(3), expected)


def test_the_smallest_of_all_its_image_sizes_counts() -> None:
    assert smallest_micro_batch(TrialConfig(model="resnet18", image_size=32, progressive_sizes={3: 64})) == 2


def test_training_on_single_images_is_refused_where_it_would_fail() -> None:
    reason = r"\(Expected more than 1 value per channel .*\): take 2 or more"
    message = f"micro_batch: resnet18 at 32 px cannot be trained on single images {reason}"
    with pytest.raises(ConfigError, match=message):
        check_network(TrialConfig(model="resnet18", image_size=32, effective_batch=4, micro_batch=1))
    with pytest.raises(ConfigError, match="effective_batch: resnet18 at 32 px cannot be trained on single images"):
        check_network(TrialConfig(model="resnet18", image_size=32, effective_batch=1))
    with pytest.raises(ConfigError, match=message):
        tc.plan(model="resnet18", image_size=32, micro_batch=1, estimate=True)
    with pytest.raises(ConfigError, match="effective_batch: resnet18 at 32 px cannot be trained on single images"):
        tc.plan(model="resnet18", image_size=32, effective_batch=1, estimate=True)
    check_network(TrialConfig(model="resnet18", image_size=64, effective_batch=4, micro_batch=1))


def test_a_plan_leaves_single_images_out_where_they_cannot_be_trained_on() -> None:
    """4,099 has no divisors but 1 and itself, and 4,099 images at once are too many."""
    found = tc.plan(model="resnet18", image_size=64, vram="1500MB", effective_batch=4099, estimate=True)
    assert [(row["micro_batch"], row["accumulation"]) for row in found.pairs] == [(1, 4099)]
    with pytest.raises(DeviceError, match="no trial of resnet18 at 32 px fits the budget"):
        tc.plan(model="resnet18", image_size=32, vram="1500MB", effective_batch=4099, estimate=True)


def test_adaptive_clipping_of_nothing_is_refused() -> None:
    message = "agc: adaptive clipping does not touch the last layer, and freeze_backbone trains nothing else, but got"
    with pytest.raises(ConfigError, match=message):
        check_network(TrialConfig(model="tiny_cnn", image_size=32, agc=0.1, freeze_backbone=True))


def test_weights_that_are_missing_or_of_another_network_are_told_before_anything_is_decoded(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    with pytest.raises(ConfigError, match=r"pretrained weights '.*weights.pth' do not exist"):
        check_network(TrialConfig(model="tiny_cnn", pretrained=str(weights)))
    torch.save(build_model("resnet18", 5).state_dict(), weights)
    check_network(TrialConfig(model="resnet18", pretrained=str(weights)))
    with pytest.raises(ConfigError, match="does not fit this model"):
        check_network(TrialConfig(model="tiny_cnn", pretrained=str(weights)))
