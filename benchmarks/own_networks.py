"""Three networks as people write them, for `model = "own_networks.py:NAME"`.

A plain CNN, one whose head takes two inputs, and one whose convolutions standardise their weights.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


class PlainCNN(nn.Module):
    """Four blocks of a convolution, batch norm and pooling, then two linear layers."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, width in ((3, 32), (32, 64), (64, 128), (128, 256)):
            layers += [_block(channels, width), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, num_classes))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.classifier(self.features(images_BCHW).mean(dim=(2, 3)))
        return logits_BK


class TwoInputHead(nn.Module):
    """Maps features of the picture and its mean colours to logits."""

    def __init__(self, features: int, colours: int, num_classes: int) -> None:
        super().__init__()
        self.of_features, self.of_colours = nn.Linear(features, num_classes), nn.Linear(colours, num_classes)

    def forward(self, features_BF: Tensor, colours_B3: Tensor) -> Tensor:
        logits_BK: Tensor = self.of_features(features_BF) + self.of_colours(colours_B3)
        return logits_BK


class TwoInputs(nn.Module):
    """Its head is given what the convolutions see, and the mean colours; it is defined before them."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.head = TwoInputHead(128, 3, num_classes)
        self.features = nn.Sequential(_block(3, 32), nn.MaxPool2d(2), _block(32, 64), nn.MaxPool2d(2), _block(64, 128))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(self.features(images_BCHW).mean(dim=(2, 3)), images_BCHW.mean(dim=(2, 3)))
        return logits_BK


class StandardisedConv2d(nn.Conv2d):
    """Weight standardisation, https://arxiv.org/abs/1903.10520."""

    def forward(self, images_BCHW: Tensor) -> Tensor:
        deviation, mean = torch.std_mean(self.weight, dim=(1, 2, 3), keepdim=True)
        return F.conv2d(images_BCHW, (self.weight - mean) / (deviation + 1e-5), self.bias, self.stride, self.padding)


class Standardised(nn.Module):
    """Convolutions with standardised weights, and group norms."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels, width in ((3, 32), (32, 64), (64, 128)):
            layers += [StandardisedConv2d(channels, width, 3, padding=1), nn.GroupNorm(8, width), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.features, self.head = nn.Sequential(*layers), nn.Linear(128, num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits_BK: Tensor = self.head(self.features(images_BCHW).mean(dim=(2, 3)))
        return logits_BK
