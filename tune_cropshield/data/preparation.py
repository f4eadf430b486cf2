"""How a photograph becomes what a network is validated on, and what `predict` shows it: the one place that says so.

    file    -> photograph: decoded, upright, RGB, of any height and width (decode.py)
    -> picture: resized once, as `fit` says, and cut to a square of `store_side` px; the store keeps these
    -> image: its middle, `image_size` px on a side, normalised as the network's published weights were trained with

There is no second resize. Of the fit "crop" a picture is a little larger than an image, so that training cuts its
random crops from real pixels (augment.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from tune_cropshield.config.settings import Fit, RunConfig
from tune_cropshield.config.timm_names import is_timms, timm_facts
from tune_cropshield.data.decode import DecodeError, decode_rgb

if TYPE_CHECKING:  # seconds to import, and needed only for images: a bad folder is told about at once
    import torch
    from torch import Tensor

# Of pixels in [0, 1]: what every pretrained torchvision classifier was trained with.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalisation(NamedTuple):
    """What is taken from pixels in [0, 1], and what they are divided by then; of red, green and blue."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Normalisation(IMAGENET_MEAN, IMAGENET_STD)


def normalisation_of(model: str) -> Normalisation:
    """Returns the normalisation that a network wants: timm says its own, all others have ImageNet's."""
    if not is_timms(model):
        return IMAGENET
    facts = timm_facts(model)
    return Normalisation(facts.mean, facts.std)


FILL = (124, 116, 104)  # the mean's nearest levels: what surrounds a photograph that does not fill the square

PICTURE_OVER_IMAGE = 8 / 7  # 256 px for 224, as torchvision's classifiers are evaluated
MOST_PIXELS = 2**26  # of a resized photograph: 8 x 4,000 px are still made 256 px high


@dataclass(frozen=True)
class Preparation:
    """The preparation for a network that is judged on images of `image_size` px.

    fit: what becomes of a photograph that is not square. "crop" makes its shorter side `store_side` px and cuts the
    longer one evenly. "pad" makes its longer side `image_size` px and fills the rest with FILL. "squash" makes both
    sides `image_size` px.

    normalisation: of images; pictures, and so the store, do not depend on it.
    """

    image_size: int
    fit: Fit = "crop"
    normalisation: Normalisation = field(default=IMAGENET, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Returns what preparation.json says: enough to do the same with other tools."""
        cropped, padded = self.fit == "crop", self.fit == "pad"
        return {
            "colour_order": "RGB",
            "upright": True,  # EXIF orientation is applied first
            "fit": self.fit,
            "resized_side": "shorter" if cropped else "longer" if padded else "both",
            "resize": self.store_side,
            "interpolation": "bilinear",
            "antialias": True,
            "crop": self.image_size if cropped else None,
            "fill": list(FILL) if padded else None,
            "image_size": self.image_size,
            "mean": list(self.normalisation.mean),  # of pixels from 0 to 1
            "std": list(self.normalisation.std),
            "layout": "NCHW",
        }

    @property
    def store_side(self) -> int:
        """The side of pictures, in px: about 8/7 of the image's where the fit crops, otherwise the image's.

        It is a multiple of 4 px larger than the image, so that to cut the picture out of a photograph and the image out
        of the picture is to cut the image out of the photograph, also where half a pixel is rounded.
        """
        if self.fit != "crop":
            return self.image_size
        return self.image_size + max(4 * round(self.image_size * (PICTURE_OVER_IMAGE - 1) / 4), 4)

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Returns the width and height of a whole photograph after its one resize, in px.

        Whole-number arithmetic alone: the sides may be torch's symbols, while a network is exported.
        """
        match self.fit:
            case "crop":
                shorter = min(width, height)
                return self.store_side * width // shorter, self.store_side * height // shorter
            case "pad":
                longer = max(width, height)
                return max(self.image_size * width // longer, 1), max(self.image_size * height // longer, 1)
            case "squash":
                return self.image_size, self.image_size

    def picture(self, photograph: Image.Image) -> npt.NDArray[np.uint8]:
        """Returns what the store keeps of an upright RGB photograph, (store_side, store_side, 3).

        Raises DecodeError where it is so long and thin that the resized one would have more than MOST_PIXELS.
        """
        width, height = self.resized(*photograph.size)
        if width * height > MOST_PIXELS:
            raise DecodeError(f"{photograph.width}x{photograph.height} pixels are too long and thin for a photograph")
        resized = photograph.resize((width, height), Image.Resampling.BILINEAR)  # Pillow's always antialiases
        side = self.store_side
        if self.fit == "pad":
            picture = Image.new("RGB", (side, side), FILL)
            picture.paste(resized, (-self.first_pixel(width, side), -self.first_pixel(height, side)))
        else:
            left, top = self.first_pixel(width, side), self.first_pixel(height, side)
            picture = resized.crop((left, top, left + side, top + side))
        return np.array(picture)

    def first_pixel(self, resized: int, side: int) -> int:
        """Returns where a square of `side` px begins on a side of a resized photograph; below 0 where that is filled.

        A crop goes to the nearest whole pixel, halves to the even one, as torchvision's CenterCrop does.
        """
        if self.fit == "pad":
            return -((side - resized) // 2)
        half, odd = (resized - side) // 2, (resized - side) % 2
        return half + odd * (half % 2)

    def picture_of(self, path: Path) -> npt.NDArray[np.uint8]:
        """Returns the picture of the photograph in a file. Raises DecodeError."""
        return self.picture(decode_rgb(path))

    def images(self, pictures_BHWC: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Returns what the network sees of pictures, (B, 3, image_size, image_size), channels_last.

        dtype: of the images; float32 where it is None.
        """
        from tune_cropshield.data.augment import evaluation_view

        return evaluation_view(pictures_BHWC, self.image_size, dtype, self.normalisation)


def judged_on(config: RunConfig) -> Preparation:
    """Returns the preparation of what a run's network is judged on, and used on afterwards."""
    return Preparation(config.trial.final_size, config.data.fit, normalisation_of(config.trial.model))
