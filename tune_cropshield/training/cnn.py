"""The two convolutional networks of our own: the guide's 4.7M-parameter one, and a tiny one for CPUs.

B: batch, C: channels, H, W: height and width, K: classes.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class BlockCNN(nn.Module):
    """Blocks of convolutions, then the mean over H and W, then a linear layer.

    A block is (conv 3x3, BN, ReLU) `convs_per_block` times, closed by a 2x2 max-pool and dropout.

    Convolutions carry no bias (the batch norm has one). `dropouts` has one probability per block, plus a last one
    before the linear layer.
    """

    def __init__(
        self, num_classes: int, widths: Sequence[int], convs_per_block: int, dropouts: Sequence[float]
    ) -> None:
        super().__init__()
        assert len(dropouts) == len(widths) + 1
        layers: list[nn.Module] = []
        channels = 3
        for width, dropout in zip(widths, dropouts, strict=False):
            for _ in range(convs_per_block):
                layers += [
                    nn.Conv2d(channels, width, 3, padding=1, bias=False),
                    nn.BatchNorm2d(width),
                    nn.ReLU(inplace=True),
                ]
                channels = width
            layers += [nn.MaxPool2d(2), nn.Dropout2d(dropout)]
        self.features = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropouts[-1])
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_BCHW: Tensor) -> Tensor:
        features_BCHW = self.features(images_BCHW)
        logits_BK: Tensor = self.classifier(self.dropout(features_BCHW.mean(dim=(2, 3))))
        return logits_BK


def cropshield_cnn(num_classes: int, dropout: float | None = None) -> nn.Module:
    """Returns the guide's CNN: widths 64-128-256-512, two convolutions a block; 4,698,582 parameters at 22 classes.

    `dropout` is the probability before the linear layer, 0.5 when None; the blocks rise to half of it.
    """
    last = 0.5 if dropout is None else dropout
    return BlockCNN(num_classes, (64, 128, 256, 512), 2, [last * share for share in (0.1, 0.2, 0.3, 0.5, 1.0)])


def tiny_cnn(num_classes: int, dropout: float | None = None) -> nn.Module:
    """Returns a CNN of about 100k parameters that trains in minutes on two CPU cores.

    Dropout before the linear layer is 0.1 when None.
    """
    last = 0.1 if dropout is None else dropout
    return BlockCNN(num_classes, (16, 32, 64, 128), 1, [0.0, 0.0, 0.0, 0.0, last])
