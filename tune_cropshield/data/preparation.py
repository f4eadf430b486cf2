"""How a photograph becomes what a network is validated on, and what `predict` shows it: the one place that says so.

    file       -> decoded: upright, its centre square, RGB, uint8, `store_side` px on a side; the store keeps these
    decoded    -> images: resized to `image_size` with antialiasing, normalised as ImageNet's

Training cuts and changes the same decoded pictures (augment.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tune_cropshield.data.augment import STORE_OVER_CROP, evaluation_view
from tune_cropshield.data.decode import decode_rgb


@dataclass(frozen=True)
class Preparation:
    """The preparation for a network that is judged on images of `image_size` px."""

    image_size: int

    @property
    def store_side(self) -> int:
        """The side of decoded pictures, in px: 8/7 of the image's, rounded up to a multiple of 4.

        They are larger than what is trained on, so that a random crop is cut from real pixels: 256 for 224.
        """
        return -(-round(self.image_size * STORE_OVER_CROP) // 4) * 4

    def decoded(self, path: Path) -> npt.NDArray[np.uint8]:
        """Returns a photograph as the store keeps it, (store_side, store_side, 3). Raises DecodeError."""
        return decode_rgb(path, self.store_side)

    def images(self, pictures_BHWC: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Returns what the network sees of decoded pictures, (B, 3, image_size, image_size), channels_last."""
        return evaluation_view(pictures_BHWC, self.image_size, dtype)
