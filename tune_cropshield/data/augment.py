"""What a photograph may look like in another field; per sample, on the device.

That is: crops, flips, rotations, light, and hidden patches.

One picture costs one interpolation (crop, flips and rotation are one inverse map) and one colour map (brightness,
contrast, saturation, hue and normalisation are one 3x3 matrix and an offset). Nothing waits for the device and no shape
depends on a draw, so all of it can run inside a captured CUDA graph, provided it ran once before on that device: the
first call copies a few constants there.

B: batch, C: the three colours, H, W: the stored picture, S: its side after augmentation. Places inside a picture run
from -1 to 1.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from tune_cropshield.data import noise
from tune_cropshield.data.preparation import IMAGENET, Normalisation

CPU_IMAGES_AT_ONCE = 8  # pictures whose intermediate results stay in a core's cache


@dataclass(frozen=True)
class Preset:
    """How far each change may go; the defaults change nothing.

    Probabilities are per sample; every other draw is uniform over its range.
    """

    crop_area: float = 1.0  # the smallest share of the picture that a crop keeps; the largest is all of it
    crop_aspect: float = 1.0  # the crop's width / height lies between 1 / this and this
    mirror: float = 0.0  # probability of left <-> right
    upside_down: float = 0.0  # probability of top <-> bottom
    rotation_degrees: float = 0.0  # to either side
    brightness: float = 0.0  # pixels times 1 ± this
    contrast: float = 0.0  # distance from grey times 1 ± this
    saturation: float = 0.0  # distance from the pixel's own grey times 1 ± this
    hue: float = 0.0  # ± this many turns of the colour circle
    erase: float = 0.0  # probability of hiding one rectangle
    erase_area: tuple[float, float] = (0.02, 0.15)  # share of the picture that it hides
    erase_aspect: float = 3.0  # its width / height lies between 1 / this and this


PRESETS = {
    "none": Preset(),
    # For data from one camera, and for fine-tuning in few epochs: only what no grower would notice.
    "conservative": Preset(
        crop_area=0.85, crop_aspect=1.1, mirror=0.5, rotation_degrees=5.0, brightness=0.1, contrast=0.1, saturation=0.1
    ),
    # The default. A leaf has no up (both flips) and is held at any slant (±15°); a crop of 70 % still shows the
    # lesion. Hue stays within ±7° of 360: between a yellow halo and a brown spot lie about 30°, and that difference
    # names the disease.
    "moderate": Preset(
        crop_area=0.7, crop_aspect=4 / 3, mirror=0.5, upside_down=0.5, rotation_degrees=15.0,
        brightness=0.2, contrast=0.2, saturation=0.2, hue=0.02,
    ),
    # For long trainings that overfit. A crop of half the picture and a hidden patch of up to 15 % make the net look at
    # more than the worst lesion; torchvision's 33 % hides a whole small leaf and leaves its label behind.
    "aggressive": Preset(
        crop_area=0.5, crop_aspect=4 / 3, mirror=0.5, upside_down=0.5, rotation_degrees=20.0,
        brightness=0.3, contrast=0.3, saturation=0.3, hue=0.04, erase=0.25,
    ),
}  # fmt: skip


class Changes(NamedTuple):
    """What happens to each sample: tensors of shape (B,), float32."""

    area: Tensor  # share of the picture
    stretch: Tensor  # log of sqrt(width / height)
    x: Tensor  # where the crop lies between the left (-1) and the right (1) edge
    y: Tensor
    mirror: Tensor  # negative: mirrored
    upside_down: Tensor  # negative: upside down
    angle: Tensor  # radians
    brightness: Tensor  # factor
    contrast: Tensor  # factor
    saturation: Tensor  # factor
    hue: Tensor  # radians
    erase: Tensor  # positive: erased
    erase_area: Tensor
    erase_stretch: Tensor
    erase_x: Tensor
    erase_y: Tensor


def augment(
    images_BHWC: Tensor,
    samples_B: Tensor,
    *,
    preset: Preset,
    out_size: int,
    seed: int,
    epoch: int | Tensor,
    dtype: torch.dtype = torch.float32,
    normalisation: Normalisation = IMAGENET,
) -> Tensor:
    """Returns normalised pictures changed within `preset`: (B, 3, out_size, out_size), channels_last.

    `Preset()` gives `evaluation_view`, every other preset cuts from the whole picture. The same sample, seed and epoch
    give the same picture in every batch. Colours are not clipped after a change, as an 8-bit picture would be: white
    may become 1.2, which the network reads as it is.

    Args:
        images_BHWC: uint8 pictures of a `Preparation` for out_size.
        samples_B: int64 numbers of the samples in the data set.
    """
    if preset == PRESETS["none"]:
        return evaluation_view(images_BHWC, out_size, dtype, normalisation)
    device, (height, width) = images_BHWC.device, images_BHWC.shape[1:3]
    images_BCHW = images_BHWC.permute(0, 3, 1, 2)

    changes = draw_changes(preset, samples_B, seed, epoch)
    crop_B23, colour_B34 = crop_map(changes, width / height), colour_map(changes, normalisation)
    centres_S = torch.linspace(-1 + 1 / out_size, 1 - 1 / out_size, out_size, device=device)
    out_BCSS = torch.empty(
        len(images_BHWC), 3, out_size, out_size, dtype=dtype, device=device, memory_format=torch.channels_last
    )
    at_once = max(CPU_IMAGES_AT_ONCE, torch.get_num_threads()) if device.type == "cpu" else len(images_BHWC)
    parts = zip(*(torch.split(whole, at_once) for whole in (images_BCHW, crop_B23, colour_B34, out_BCSS)), strict=True)
    for part, maps, colours, out in parts:
        sampled = F.grid_sample(
            part.to(torch.float32),
            _grid(maps, centres_S),
            # As sharp as the images that are validated on, which are not resampled a second time. Bilinear blurs: with
            # it a small network on real leaves of 96 px reached val_acc 0.786, with bicubic 0.860.
            mode="bicubic",
            # a rotated crop may reach over the edge: more leaf there, no black corner that tells the angle
            padding_mode="reflection",
            align_corners=False,
        )
        out.copy_(_recoloured(sampled, colours))
    if preset.erase:
        out_BCSS.mul_(kept_pixels(changes, centres_S))  # 0 is the mean colour
    return out_BCSS


def evaluation_view(
    images_BHWC: Tensor, out_size: int, dtype: torch.dtype | None = None, normalisation: Normalisation = IMAGENET
) -> Tensor:
    """Returns the middle of pictures, normalised: (B, 3, out_size, out_size), channels_last; float32 without a dtype.

    Not a pixel is resampled; no picture is smaller than out_size.
    """
    top, left = ((side - out_size) // 2 for side in images_BHWC.shape[1:3])
    assert top >= 0 and left >= 0
    middle_BCHW = images_BHWC[:, top : top + out_size, left : left + out_size].permute(0, 3, 1, 2)
    scale_C11, offset_C11 = _scale_and_offset(images_BHWC.device, normalisation)
    return (middle_BCHW * scale_C11).add_(offset_C11).to(dtype or torch.float32, memory_format=torch.channels_last)


def draw_changes(preset: Preset, samples_B: Tensor, seed: int, epoch: int | Tensor) -> Changes:
    """Returns every sample's changes.

    Presets share draws: a sample mirrored under one is mirrored under every other of the same odds.
    """
    low_D, span_D = _ranges(preset, samples_B.device)
    draws_BD = noise.uniform(seed, epoch, samples_B, len(Changes._fields))
    return Changes(*torch.addcmul(low_D, draws_BD, span_D).unbind(1))


def crop_map(changes: Changes, aspect: float) -> Tensor:
    """Returns (B, 2, 3): from a place (x, y, 1) in the result to the place in the stored picture.

    aspect: width / height of the stored picture.

    The crop lies inside the picture, then turns about its own centre. A side longer than the picture's is cut to it,
    not drawn again.
    """
    side, stretch = changes.area.sqrt(), changes.stretch.exp()
    width, height = (side * stretch).clamp_(max=1.0), (side / stretch).clamp_(max=1.0)
    x, y = changes.x * (1 - width), changes.y * (1 - height)
    width, height = width.copysign(changes.mirror), height.copysign(changes.upside_down)
    cos, sin = changes.angle.cos(), changes.angle.sin()
    return torch.stack(
        (width * cos, height * sin * (-1 / aspect), x, width * sin * aspect, height * cos, y), dim=1
    ).view(-1, 2, 3)


def colour_map(changes: Changes, normalisation: Normalisation = IMAGENET) -> Tensor:
    """Returns (B, 3, 4): from a pixel (r, g, b in 0..255, then 1) to its changed and normalised colour.

    Brightness, then contrast about mid-grey, then saturation and hue as a stretch and a turn of the chroma in YIQ: all
    linear, one matrix. Contrast turns about a fixed grey and not about the picture's mean, which would cost a pass over
    the picture before its first pixel is written. The two differ by a change of brightness, (1 - contrast) * (mean -
    0.5), smaller than the brightness that is drawn anyway.
    """
    gain = changes.brightness * changes.contrast
    chroma = gain * changes.saturation
    ones = torch.ones_like(gain)
    shares_BK = torch.stack(
        (gain, chroma * changes.hue.cos(), chroma * changes.hue.sin(), 1 - changes.contrast, ones), dim=1
    )
    return (shares_BK[:, :, None, None] * _colour_table(gain.device, normalisation)).sum(1)


def kept_pixels(changes: Changes, centres_S: Tensor) -> Tensor:
    """Returns (B, 1, S, S): 0 inside an erased sample's rectangle, 1 elsewhere.

    The rectangle lies inside the picture.
    """
    side, stretch = changes.erase_area.sqrt(), changes.erase_stretch.exp()
    width, height = (side * stretch).clamp_(max=1.0), (side / stretch).clamp_(max=1.0)
    x, y = changes.erase_x * (1 - width), changes.erase_y * (1 - height)
    width = width.copysign(changes.erase)  # a rectangle of negative width holds no pixel
    outside_BS = (centres_S - x[:, None]).abs() >= width[:, None]
    below_or_above_BS = (centres_S - y[:, None]).abs() >= height[:, None]
    return (outside_BS[:, None, None, :] | below_or_above_BS[:, None, :, None]).to(torch.float32)


def _grid(map_B23: Tensor, centres_S: Tensor) -> Tensor:
    """Returns (B, S, S, 2) for grid_sample, x and y in two planes.

    That is 25 times faster than F.affine_grid on a CPU, and as fast to sample by.
    """
    x_B2, y_B2, shift_B2 = map_B23[:, :, None, None].unbind(-1)
    return (x_B2 * centres_S + (y_B2 * centres_S[:, None] + shift_B2)).permute(0, 2, 3, 1)


def _recoloured(images_BCSS: Tensor, map_B34: Tensor) -> Tensor:
    """Returns the colour map of every pixel, in three sums.

    Autocast and TF32 would round a matrix product, each device in its own way.
    """
    red, green, blue, offset = map_B34[:, :, None, None].unbind(-1)
    out = torch.addcmul(offset, red, images_BCSS[:, 0:1])
    return out.addcmul_(green, images_BCSS[:, 1:2]).addcmul_(blue, images_BCSS[:, 2:3])


@functools.cache
def _ranges(preset: Preset, device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns low and span (both (D,)) of every field of `Changes`, on the device."""

    def around(middle: float, reach: float) -> tuple[float, float]:
        return middle - reach, middle + reach

    ranges = {
        "area": (preset.crop_area, 1.0),
        "stretch": around(0.0, 0.5 * math.log(preset.crop_aspect)),
        "x": (-1.0, 1.0),
        "y": (-1.0, 1.0),
        "mirror": (-preset.mirror, 1 - preset.mirror),
        "upside_down": (-preset.upside_down, 1 - preset.upside_down),
        "angle": around(0.0, math.radians(preset.rotation_degrees)),
        "brightness": around(1.0, preset.brightness),
        "contrast": around(1.0, preset.contrast),
        "saturation": around(1.0, preset.saturation),
        "hue": around(0.0, 2 * math.pi * preset.hue),
        "erase": (preset.erase, preset.erase - 1),
        "erase_area": preset.erase_area,
        "erase_stretch": around(0.0, 0.5 * math.log(preset.erase_aspect)),
        "erase_x": (-1.0, 1.0),
        "erase_y": (-1.0, 1.0),
    }
    table = torch.tensor([ranges[name] for name in Changes._fields], dtype=torch.float64)
    return _sent(table[:, 0], device), _sent(table[:, 1] - table[:, 0], device)


@functools.cache
def _scale_and_offset(device: torch.device, normalisation: Normalisation) -> tuple[Tensor, Tensor]:
    """Returns scale and offset, both (3, 1, 1), from 0..255 to normalised."""
    mean_C, std_C = (torch.tensor(values, dtype=torch.float64) for values in normalisation)
    return _sent((1 / (255 * std_C)).view(3, 1, 1), device), _sent((-mean_C / std_C).view(3, 1, 1), device)


@functools.cache
def _colour_table(device: torch.device, normalisation: Normalisation) -> Tensor:
    """Returns (5, 3, 4): the maps that `colour_map` weighs.

    They are: to grey, chroma kept, chroma turned by 90°, to mid-grey, and minus the mean.
    """
    yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]], dtype=torch.float64)
    turned = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    grey = yiq[0].expand(3, 3)
    table = torch.zeros(5, 3, 4, dtype=torch.float64)
    table[0, :, :3] = grey / 255
    table[1, :, :3] = (torch.eye(3, dtype=torch.float64) - grey) / 255
    table[2, :, :3] = yiq.inverse() @ turned @ yiq / 255
    table[3, :, 3] = 0.5
    mean_C, std_C = (torch.tensor(values, dtype=torch.float64) for values in normalisation)
    table[4, :, 3] = -mean_C
    return _sent(table / std_C[:, None], device)


def _sent(table: Tensor, device: torch.device) -> Tensor:
    """Returns a float32 copy on the device, without waiting for it.

    A CUDA graph cannot capture such a copy: warm up before capturing.
    """
    return table.to(torch.float32).to(device, non_blocking=True)
