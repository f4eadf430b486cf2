"""Networks by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tune_cropshield.errors import ConfigError
from tune_cropshield.training.models import build_model, correct_momentum, head_of


def count(model: torch.nn.Module, trainable: bool = False) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad or not trainable)


def test_the_guides_cnn_has_4698582_parameters_at_22_classes() -> None:
    assert count(build_model("cropshield_cnn", 22)) == 4_698_582


@pytest.mark.parametrize("name", ["tiny_cnn", "resnet18", "mobilenet_v3_small", "googlenet", "squeezenet1_1"])
def test_every_kind_of_network_maps_images_to_one_logit_per_class(name: str) -> None:
    model = build_model(name, 7, dropout=0.5)
    logits = model(torch.zeros(2, 3, 64, 64))
    assert logits.shape == (2, 7)


def test_an_unknown_name_lists_close_and_common_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'resnt50'; did you mean resnet50.*cropshield_cnn"):
        build_model("resnt50", 3)


def test_dropout_is_set_or_added_without_changing_a_parameters_name() -> None:
    plain, dropped = build_model("resnet18", 3), build_model("resnet18", 3, dropout=0.999)
    assert list(plain.state_dict()) == list(dropped.state_dict())
    dropped.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(plain.eval()(images), dropped.eval()(images))
    assert not torch.equal(plain(images), dropped.train()(images))
    efficientnet = build_model("efficientnet_b0", 3, dropout=0.7)
    assert efficientnet.classifier[0].p == 0.7


def test_a_frozen_backbone_trains_the_head_alone_and_keeps_its_statistics() -> None:
    model = build_model("resnet18", 3, freeze_backbone=True).train()
    assert count(model, trainable=True) == 512 * 3 + 3
    before = model.bn1.running_mean.clone()
    model(torch.randn(4, 3, 32, 32) + 5)
    assert torch.equal(model.bn1.running_mean, before)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_of_another_number_of_classes_load_all_but_the_head(suffix: str, tmp_path: Path) -> None:
    source = build_model("resnet18", 1000)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(source.state_dict(), path)
    else:
        save_file(source.state_dict(), path)
    model = build_model("resnet18", 3, pretrained=str(path))
    assert torch.equal(model.layer4[1].conv2.weight, source.layer4[1].conv2.weight)
    assert model.fc.weight.shape == (3, 512)


def test_weights_of_another_network_are_refused_with_the_first_tensor_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(build_model("resnet18", 3).state_dict(), path)
    with pytest.raises(
        ConfigError, match=r"weights\.pt does not fit this model: \d+ tensors are missing or of another shape, first "
    ):
        build_model("tiny_cnn", 3, pretrained=str(path))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("executed",)

    path = tmp_path / "weights.pt"
    torch.save({"weight": Evil()}, path)
    with pytest.raises(ConfigError, match="cannot be read"):
        build_model("tiny_cnn", 3, pretrained=str(path))


def test_the_head_is_the_last_layer_with_weights() -> None:
    assert head_of(build_model("resnet18", 3))[0] == "fc"
    assert head_of(build_model("tiny_cnn", 3))[0] == "classifier"


def test_corrected_momentum_moves_the_statistics_over_k_micro_batches_as_far_as_one_batch_would() -> None:
    norm = torch.nn.BatchNorm2d(1, momentum=0.1)
    correct_momentum(norm, 4)
    assert 1 - (1 - norm.momentum) ** 4 == pytest.approx(0.1)
    for _ in range(4):
        norm(torch.full((2, 1, 2, 2), 3.0))
    assert float(norm.running_mean) == pytest.approx(0.3)
