"""How deep the blocks of networks lie, and which share of the learning rate they have for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tune_cropshield.training.depth import blocks_in_order, lr_shares
from tune_cropshield.training.models import build_model, head_of


def shares(model: nn.Module, backbone_lr_factor: float = 1.0, layer_decay: float = 1.0) -> dict[str, float]:
    """Returns {name of a parameter: its share of the learning rate}; the head's parameters have none of their own."""
    found = lr_shares(model, head_of(model)[1], backbone_lr_factor, layer_decay)
    return {name: found[parameter] for name, parameter in model.named_parameters() if parameter in found}


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, 5)


def test_each_residual_block_of_resnet18_is_a_step_further_from_the_head() -> None:
    found = shares(on_meta("resnet18"), layer_decay=0.75)

    by_block = {name.rpartition(".conv1")[0]: share for name, share in found.items() if name.endswith("conv1.weight")}
    assert by_block == pytest.approx(
        {
            "": 0.0750847,  # the first convolution: 0.75^9
            "layer1.0": 0.1001129,
            "layer1.1": 0.1334839,
            "layer2.0": 0.1779785,
            "layer2.1": 0.2373047,
            "layer3.0": 0.3164063,
            "layer3.1": 0.4218750,
            "layer4.0": 0.5625,
            "layer4.1": 0.75,
        },
        rel=1e-6,
    )
    assert found["bn1.weight"] == found["conv1.weight"]
    assert found["layer2.0.downsample.0.weight"] == found["layer2.0.bn2.bias"] == found["layer2.0.conv1.weight"]
    assert "fc.weight" not in found and "fc.bias" not in found and len(found) == 60


def test_both_factors_are_multiplied() -> None:
    found = shares(on_meta("resnet18"), backbone_lr_factor=0.1, layer_decay=0.5)

    assert found["layer4.1.conv2.weight"] == pytest.approx(0.05)
    assert found["layer4.0.conv1.weight"] == pytest.approx(0.025)
    assert found["conv1.weight"] == pytest.approx(0.1 / 512)


def test_without_layer_decay_the_whole_backbone_has_one_share_and_without_both_nothing_has() -> None:
    assert set(shares(on_meta("efficientnet_b0"), backbone_lr_factor=0.1).values()) == {0.1}
    assert shares(on_meta("efficientnet_b0")) == {}


def test_efficientnets_stem_blocks_and_last_convolution_are_eighteen_steps() -> None:
    found = shares(on_meta("efficientnet_b0"), layer_decay=0.9)

    names = ("features.8.0.weight", "features.7.0.block.0.0.weight", "features.6.3.block.0.0.weight")
    assert [found[name] for name in names] == pytest.approx([0.9, 0.81, 0.729])
    assert found["features.1.0.block.0.0.weight"] == found["features.1.0.block.1.fc2.bias"] == pytest.approx(0.9**17)
    assert found["features.0.0.weight"] == found["features.0.1.bias"] == pytest.approx(0.1500946)
    assert len(set(found.values())) == 18


def test_a_vision_transformers_embeddings_are_thirteen_steps_from_its_head_and_its_last_norm_one() -> None:
    found = shares(on_meta("vit_b_16"), layer_decay=0.75)

    embedding = ("class_token", "conv_proj.weight", "encoder.pos_embedding")
    assert [found[name] for name in embedding] == pytest.approx([0.0237573] * 3, rel=1e-5)
    blocks = [found[f"encoder.layers.encoder_layer_{number}.mlp.0.weight"] for number in (0, 1, 10, 11)]
    assert blocks == pytest.approx([0.0316764, 0.0422351, 0.5625, 0.75], rel=1e-5)
    assert found["encoder.ln.weight"] == 0.75
    assert "heads.head.weight" not in found


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("vgg11_bn", 10),  # 8 convolutions, 2 linear layers before the head
        ("densenet121", 62),  # the first convolution, 58 dense layers, 3 transitions
        ("convnext_tiny", 22),  # the first convolution, 18 blocks, 3 that make feature maps smaller
        ("mobilenet_v3_small", 14),  # the first and last convolution, 11 blocks, a linear layer before the head
        ("squeezenet1_1", 9),
        ("regnet_y_400mf", 17),  # the first convolution, 16 blocks in 4 stages
        ("tiny_cnn", 4),
        ("cropshield_cnn", 8),
    ],
)
def test_every_parameter_outside_the_head_lies_in_one_block(name: str, blocks: int) -> None:
    model = build_model(name, 5)
    head = head_of(model)[1]
    found = blocks_in_order(model, head)

    assert len(found) == blocks
    of_blocks = [id(parameter) for block in found for parameter in block]
    of_head = {id(parameter) for parameter in head.parameters()}
    assert len(of_blocks) == len(set(of_blocks))
    assert set(of_blocks) == {id(parameter) for parameter in model.parameters()} - of_head


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.norm = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW + self.norm(self.second(self.first(images_BCHW).relu()))


class Features(nn.Module):
    """Plain layers, then blocks that are no list."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.block1, self.block2 = Block(), Block()

    def forward(self, images_BCHW: Tensor) -> Tensor:
        return self.block2(self.block1(self.norm(self.conv(images_BCHW * self.scale)))).mean(dim=(2, 3))


@pytest.mark.parametrize("frame", ["list", "module"])
def test_an_own_networks_layers_and_blocks_are_found_wherever_they_stand(frame: str) -> None:
    class Framed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.neck, self.head = Features(), nn.Identity(), nn.Linear(8, 3)

    model = nn.Sequential(Features(), nn.Linear(8, 3)) if frame == "list" else Framed()

    found = list(shares(model, layer_decay=0.5).values())
    # the scale, convolution and norm; each block's two convolutions and norm
    assert found == [0.125] * 5 + [0.25] * 6 + [0.5] * 6


def test_a_tied_weight_lies_where_it_is_met_first_and_one_of_the_head_with_the_head() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    assert shares(model, layer_decay=0.5) == {"0.weight": 0.25, "0.bias": 0.25, "2.bias": 0.5}
    model[2].weight = nn.Parameter(torch.zeros(4, 4))
    model[0].weight = model[3].weight
    assert shares(model, layer_decay=0.5) == {"0.bias": 0.25, "2.weight": 0.5, "2.bias": 0.5}


def test_a_network_that_is_its_head_alone_has_nothing_to_slow_down() -> None:
    assert shares(nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), layer_decay=0.5) == {}


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "deit_tiny_patch16_224"])
def test_timms_networks_get_the_shares_that_timm_gives_them(name: str) -> None:
    timm = pytest.importorskip("timm")
    from timm.optim import param_groups_layer_decay

    model = timm.create_model(name, num_classes=5)
    groups = param_groups_layer_decay(model, layer_decay=0.75)
    theirs = {id(parameter): group["lr_scale"] for group in groups for parameter in group["params"]}
    names = {name: theirs[id(parameter)] for name, parameter in model.named_parameters()}

    found = shares(model, layer_decay=0.75)
    assert {name: found.get(name, 1.0) for name in names} == pytest.approx(names)
