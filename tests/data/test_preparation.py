"""A photograph is resized once, and plain torchvision does the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as F

from tune_cropshield.data.decode import DecodeError
from tune_cropshield.data.preparation import IMAGENET_MEAN, IMAGENET_STD, Preparation

# Odd and even, both orientations, smaller and larger than the image, square, and long strips.
SIZES = [
    (160, 160),
    (161, 97),
    (97, 161),
    (40, 50),
    (333, 250),
    (250, 333),
    (1001, 667),
    (640, 481),
    (9, 300),
    (300, 8),
]
IMAGE_SIZES = [16, 17, 31, 64, 97, 160, 224]


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * 10_000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def shown(preparation: Preparation, photograph: Image.Image) -> torch.Tensor:
    """Returns the image that a network sees, (3, S, S)."""
    picture = preparation.picture(photograph)
    assert picture.shape == (preparation.store_side, preparation.store_side, 3)
    assert picture.dtype == np.uint8
    return preparation.images(torch.from_numpy(picture)[None])[0]


def levels(image_CHW: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((image_CHW * std + mean) * 255).round().to(torch.uint8)


@pytest.mark.parametrize(
    ("image_size", "side"), [(16, 20), (17, 21), (32, 36), (64, 72), (96, 108), (128, 148), (160, 184), (224, 256)]
)
def test_a_picture_is_an_eighth_larger_than_the_image_where_it_is_cropped(image_size: int, side: int) -> None:
    assert Preparation(image_size).store_side == side
    assert Preparation(image_size, "pad").store_side == image_size
    assert Preparation(image_size, "squash").store_side == image_size


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_crop_is_torchvisions_resize_and_centre_crop_to_the_last_level(
    width: int, height: int, image_size: int
) -> None:
    photograph = noise(width, height)
    side = Preparation(image_size).store_side
    plain = transforms.Compose([transforms.Resize(side), transforms.CenterCrop(image_size), transforms.PILToTensor()])
    assert torch.equal(levels(shown(Preparation(image_size), photograph)), plain(photograph))


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_squash_is_torchvisions_resize_to_a_square(width: int, height: int, image_size: int) -> None:
    photograph = noise(width, height)
    plain = transforms.Compose([transforms.Resize((image_size, image_size)), transforms.PILToTensor()])
    assert torch.equal(levels(shown(Preparation(image_size, "squash"), photograph)), plain(photograph))


@pytest.mark.parametrize("image_size", IMAGE_SIZES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pad_is_torchvisions_resize_of_the_longer_side_and_a_border(width: int, height: int, image_size: int) -> None:
    photograph = noise(width, height)
    longer = max(width, height)
    size = [max(int(image_size * height / longer), 1), max(int(image_size * width / longer), 1)]
    left, top = (image_size - size[1]) // 2, (image_size - size[0]) // 2
    border = [left, top, image_size - size[1] - left, image_size - size[0] - top]
    plain = F.pil_to_tensor(F.pad(F.resize(photograph, size), border, fill=(124, 116, 104)))
    assert torch.equal(levels(shown(Preparation(image_size, "pad"), photograph)), plain)


def test_the_numbers_are_torchvisions_normalisation() -> None:
    photograph = noise(90, 70)
    plain = transforms.Compose(
        [
            transforms.Resize(36),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    torch.testing.assert_close(shown(Preparation(32), photograph), plain(photograph), rtol=0, atol=1e-6)


def test_a_strip_that_would_fill_the_memory_is_no_photograph(tmp_path: Path) -> None:
    Image.new("RGB", (8, 60_000)).save(tmp_path / "1.png")
    assert Preparation(32).picture_of(tmp_path / "1.png").shape == (36, 36, 3)
    with pytest.raises(DecodeError, match=r"^8x60000 pixels are too long and thin for a photograph$"):
        Preparation(224).picture_of(tmp_path / "1.png")
