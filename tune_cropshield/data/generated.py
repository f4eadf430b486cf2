"""The synthetic data set: a small folder of drawn leaves, for trying everything out without any photographs.

Each picture is a function of (seed, class, index) alone. H, W: height and width in pixels; colours are float32 RGB in
[0, 1], (H, W, 3). Leaf coordinates: `along` runs from 0 at the stalk to 1 at the tip; `across` from 0 at the midrib to
-1 and 1 at the two margins.
"""

from __future__ import annotations

import functools
import io
import math
import os
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from tune_cropshield.device import num_cores
from tune_cropshield.errors import DataError, DiskFull
from tune_cropshield.files import is_disk_full

Floats = npt.NDArray[np.floating[Any]]  # float32 throughout: twice as fast, and Python floats keep it so
MIN_PER_CLASS, MIN_IMAGE_SIZE = 3, 16  # one image for each side of the split; below 16 px no texture is left
MAX_PER_CLASS, MAX_IMAGE_SIZE = 100_000, 4096  # beyond them a slip of the finger fills the disk or the memory
JPEG_QUALITY = 92

# The data set's folder in the cache, and its name in earlier versions: searches on it look for it there.
SYNTHETIC = ("synthetic-leaves-*", "drawn-leaves-*")
DRAWN_CLASSES, DRAWN_PER_CLASS, DRAWN_SIZE = 6, 80, 96  # small enough for a first search of a minute on two cores


@dataclass(frozen=True)
class Leaf:
    """The geometry of one leaf on an H x W canvas."""

    size: int
    depth_HW: Floats  # 0 at the margin, 1 at the midrib of the widest place, negative outside
    along_HW: Floats
    across_HW: Floats
    veins_HW: Floats  # 1 on a vein, 0 between them
    place: Callable[[Floats, Floats], tuple[Floats, Floats]]  # (along, across) -> x, y in pixels


def draw_leaves(
    root: Path, classes: int = 6, per_class: int = 80, image_size: int = 96, seed: int = 0, views: int = 1
) -> Path:
    """Draws a data set into the folder `root`, and returns it.

    It holds `per_class` JPEGs of each of the first `classes` diseases: root/<class>/<class>_<index>.jpg. With several
    `views`, so many in turn show one leaf, on another ground, turned and in other light:
    root/<class>/<class>_plant<number>_view<number>.jpg.

    The same (seed, class, index, image_size, views) gives the same picture, however many are drawn. The folder is drawn
    aside and renamed: where `root` exists it is complete, and a killed draw leaves at most a hidden folder beside it.
    Raises DataError for numbers out of range, a `root` that exists with something in it, or one that cannot be written.
    """
    root = Path(os.path.abspath(root))
    for name, value, low, high in (
        ("classes", classes, 2, len(DISEASES)),
        ("per_class", per_class, MIN_PER_CLASS, MAX_PER_CLASS),
        ("image_size", image_size, MIN_IMAGE_SIZE, MAX_IMAGE_SIZE),
        ("seed", seed, 0, None),
        ("views", views, 1, per_class),
    ):
        if value < low or (high is not None and value > high):
            limit = f"between {low} and {high}" if high is not None else f"at least {low}"
            raise DataError(f"`{name}` must be {limit}, but got {name}={value}")
    aside = root.with_name(f".{root.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        if root.exists() and not (root.is_dir() and not any(root.iterdir())):
            raise DataError(
                f"{str(root)!r} exists already and is not an empty folder: synthetic photographs need a new folder"
            )
        names = list(DISEASES)[:classes]
        for name in names:
            (aside / name).mkdir(parents=True)

        def draw_and_save(task: tuple[str, int]) -> None:
            name, index = task
            leaf, view = divmod(index, views)
            file = f"{name}_{index:04d}.jpg" if views == 1 else f"{name}_plant{leaf:03d}_view{view}.jpg"
            picture = draw_leaf(name, leaf, image_size, seed, view if views > 1 else None)
            (aside / name / file).write_bytes(_jpeg(picture))

        with ThreadPoolExecutor(num_cores()) as pool:
            for _ in pool.map(draw_and_save, [(name, index) for name in names for index in range(per_class)]):
                pass
        if root.exists():
            root.rmdir()  # empty; Windows renames onto nothing that exists
        os.replace(aside, root)
    except OSError as error:
        if is_disk_full(error):
            raise DiskFull(
                f"no space left on the disk while making photographs in {root}: free some, then try again"
            ) from error
        raise DataError(f"photographs cannot be made in {str(root)!r}: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return root


def draw_leaf(disease: str, index: int, image_size: int, seed: int, view: int | None = None) -> npt.NDArray[np.uint8]:
    """Returns one picture, RGB (image_size, image_size, 3).

    Args:
        disease: a key of DISEASES.
        view: which of several pictures of the same leaf; None for a leaf's only one.
    """
    # The place in the table, not Python's hash, which changes from process to process.
    place = [seed, list(DISEASES).index(disease), index]
    rng = np.random.Generator(np.random.PCG64(place))
    leaf = _grow(rng, image_size, curl=disease == "yellow_curl")
    colour_HWC = _blade(rng, leaf)
    severity = float(rng.beta(1.6, 1.4)) * 0.85 + 0.15  # many mild cases: those are what makes classes overlap
    DISEASES[disease](rng, leaf, colour_HWC, severity)
    _blemishes(rng, leaf, colour_HWC)
    if view is None:
        return _photograph(rng, leaf, colour_HWC)
    rng = np.random.Generator(np.random.PCG64([*place, view + 1]))
    return np.ascontiguousarray(np.rot90(_photograph(rng, leaf, colour_HWC), int(rng.integers(4))))


def _jpeg(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


# The plant


@functools.lru_cache(maxsize=4)
def _grid(size: int) -> tuple[Floats, Floats]:
    """Returns x and y of every pixel centre in (-1, 1), each (H, W)."""
    line = (np.arange(size, dtype=np.float32) + 0.5) * (2 / size) - 1
    x_HW, y_HW = np.meshgrid(line, line)
    return x_HW, y_HW


def _grow(rng: np.random.Generator, size: int, curl: bool) -> Leaf:
    """Returns a leaf of random outline, size, bend and rotation; `curl` makes it narrower and its margin wavy."""
    length = rng.uniform(0.85, 1.10)
    width = length * rng.uniform(0.50, 0.74) * (0.8 if curl else 1.0)
    bend, skew, roundness = rng.uniform(-0.35, 0.35), rng.uniform(0.65, 1.0), rng.uniform(0.65, 1.0)
    teeth, tooth_depth = int(rng.integers(7, 16)), rng.uniform(0.0, 0.07)
    waves, wave_depth = rng.uniform(2, 4), rng.uniform(0.03, 0.16) if curl else rng.uniform(0.0, 0.06)
    phase = rng.uniform(0, 2 * math.pi)
    angle, centre_x, centre_y = rng.uniform(0, 2 * math.pi), rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12)
    cosine, sine = math.cos(angle), math.sin(angle)

    def half_width(along: Floats) -> Floats:
        outline = np.maximum(np.sin(math.pi * along**skew), 0) ** roundness  # rounding takes sin(pi) below zero
        wide: Floats = np.maximum(outline * (1 + wave_depth * np.sin(2 * math.pi * waves * along + phase)), 1e-3)
        return wide

    def place(along: Floats, across: Floats) -> tuple[Floats, Floats]:
        u = 2 * along - 1
        v = across * half_width(along) + bend * (u * u - 0.4)
        x = centre_x + u * length * cosine - v * width * sine
        y = centre_y + u * length * sine + v * width * cosine
        return (x + 1) * (size / 2), (y + 1) * (size / 2)

    x_HW, y_HW = _grid(size)
    x_HW, y_HW = x_HW - centre_x, y_HW - centre_y
    u_HW = (x_HW * cosine + y_HW * sine) / length
    v_HW = (y_HW * cosine - x_HW * sine) / width - bend * (u_HW * u_HW - 0.4)
    along_HW = np.clip((u_HW + 1) / 2, 0, 1)
    half_HW = half_width(along_HW)
    tooth_HW = np.abs((along_HW * teeth) % 1 - 0.5) * (2 * tooth_depth)
    depth_HW = half_HW * (1 - tooth_HW) - np.abs(v_HW) - 4 * np.maximum(np.abs(u_HW) - 1, 0)
    pixel = 2 / (size * width)  # in units of v

    rows, slope = rng.uniform(6, 10), rng.uniform(0.25, 0.5)
    row_HW = np.abs((along_HW * rows - np.abs(v_HW) * (slope * rows * 0.7)) % 1 - 0.5) * 2
    side_HW = np.clip(1 - row_HW * (length * size / rows / 2.4), 0, 1) * 0.7
    middle_HW = np.clip(1.6 - np.abs(v_HW) / (pixel * max(1.0, size / 80)) * (0.6 + 0.6 * along_HW), 0, 1)
    return Leaf(size, depth_HW, along_HW, v_HW / half_HW, np.maximum(side_HW, middle_HW), place)


def _blade(rng: np.random.Generator, leaf: Leaf) -> Floats:
    """Returns the healthy colour of the leaf everywhere on the canvas."""
    green = np.array([rng.uniform(0.20, 0.42), rng.uniform(0.42, 0.60), rng.uniform(0.10, 0.24)], np.float32)
    shade_HW = 1 + 0.09 * _clouds(rng, leaf.size, 5) + rng.uniform(-0.09, 0.09) * np.sign(leaf.across_HW)
    shade_HW *= 0.86 + 0.2 * np.clip(leaf.depth_HW, 0, 1)
    colour_HWC = green * shade_HW[..., None]
    _paint(colour_HWC, (0.60, 0.70, 0.38), leaf.veins_HW * rng.uniform(0.2, 0.55))
    return colour_HWC


# The diseases: each paints over the blade, the more the higher its severity in [0.15, 1]


def _healthy(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """Leaves the blade alone, but for the pale patches that any old leaf has."""
    _paint(colour_HWC, (0.55, 0.60, 0.22), _patches(rng, leaf, 4, 0.12) * (0.25 * severity))


def _rust(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """Many orange pustules, small and raised."""
    _paint(colour_HWC, (0.62, 0.56, 0.18), _patches(rng, leaf, 5, 0.35 * severity) * 0.4)
    _paint(colour_HWC, _tint(rng, (0.74, 0.36, 0.09)), _spots(rng, leaf, int(6 + 55 * severity), 0.010, 0.020))


def _leaf_spot(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """A few round spots: brown ring, pale grey centre, faint yellow halo."""
    seed = int(rng.integers(2**32))
    count = int(2 + 11 * severity)
    for tint, alpha, grow in (
        ((0.66, 0.62, 0.20), 0.5, 1.7),
        ((0.30, 0.20, 0.11), 0.9, 1.0),
        ((0.60, 0.55, 0.45), 0.8, 0.5),
    ):
        same_places = np.random.default_rng(seed)  # with smaller and smaller spots
        spots_HW = _spots(same_places, leaf, count, 0.030 * grow, 0.052 * grow)
        _paint(colour_HWC, tint, spots_HW * alpha)


def _blight(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """Large brown areas that eat in from the margin, darker in rings."""
    near_margin_HW = np.clip(1 - leaf.depth_HW * 1.6, 0, 1)
    dead_HW = _soft_step(_clouds(rng, leaf.size, 4) * 0.7 + near_margin_HW * 0.9, 1.25 - 1.15 * severity, 0.15)
    _paint(colour_HWC, (0.60, 0.56, 0.20), _blurred(dead_HW, leaf.size * 0.03) * 0.5)
    rings_HW = 1 + 0.18 * np.sin(_clouds(rng, leaf.size, 4) * 14)
    _paint(colour_HWC, _tint(rng, (0.38, 0.26, 0.14)), dead_HW * 0.85, rings_HW)


def _mosaic(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """Light and dark green fields with hard borders, the veins between them staying dark."""
    strength = 0.18 + 0.55 * severity
    fields_HW = _clouds(rng, leaf.size, 11)
    _paint(colour_HWC, (0.66, 0.72, 0.28), _soft_step(fields_HW, 0.25, 0.25) * strength * (1 - leaf.veins_HW * 0.6))
    _paint(colour_HWC, (0.08, 0.27, 0.09), _soft_step(-fields_HW, 0.35, 0.25) * strength * 0.8)


def _mildew(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """White powder in soft, grainy blotches."""
    grain_HW = 1 + 0.25 * _clouds(rng, leaf.size, max(leaf.size // 2, 2))
    powder_HW = np.clip(_patches(rng, leaf, 7, 0.15 + 0.45 * severity) * grain_HW, 0, 1)
    _paint(colour_HWC, (0.86, 0.87, 0.83), powder_HW * (0.35 + 0.4 * severity))


def _yellow_curl(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """Yellow from the margin inwards, green along the veins, on a narrow, wavy leaf."""
    yellow_HW = np.clip(1.25 - leaf.depth_HW * 2.2 + 0.25 * _clouds(rng, leaf.size, 4), 0, 1)
    _paint(colour_HWC, (0.82, 0.76, 0.20), yellow_HW * (0.2 + 0.65 * severity) * (1 - leaf.veins_HW * 0.6))


def _bacterial_spot(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """Small dark specks in clusters, each with a thin yellow rim."""
    seed, count = int(rng.integers(2**32)), int(5 + 38 * severity)
    for tint, alpha, grow in (((0.68, 0.62, 0.18), 0.55, 2.0), ((0.13, 0.10, 0.07), 0.9, 1.0)):
        specks_HW = _spots(np.random.default_rng(seed), leaf, count, 0.010 * grow, 0.022 * grow, clusters=3)
        _paint(colour_HWC, tint, specks_HW * alpha)


def _scorch(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """A dry, light brown margin with a red border, deepest at the tip."""
    reach_HW = (0.05 + 0.45 * severity) * (0.5 + leaf.along_HW) + 0.07 * _clouds(rng, leaf.size, 8)
    _paint(colour_HWC, (0.50, 0.22, 0.14), _soft_step(reach_HW - leaf.depth_HW, -0.07, 0.08) * 0.7)
    _paint(colour_HWC, (0.66, 0.50, 0.30), _soft_step(reach_HW - leaf.depth_HW, 0.0, 0.08) * 0.85)


def _mold(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats, severity: float) -> None:
    """Pale yellow blotches with olive-grey fuzz in their middle."""
    blotches_HW = _clouds(rng, leaf.size, 5)
    threshold = 1.3 - 1.2 * severity
    _paint(colour_HWC, (0.72, 0.70, 0.28), _soft_step(blotches_HW, threshold, 0.35) * 0.65)
    fuzz_HW = _soft_step(blotches_HW + 0.2 * _clouds(rng, leaf.size, max(leaf.size // 3, 2)), threshold + 0.45, 0.3)
    _paint(colour_HWC, (0.36, 0.34, 0.22), fuzz_HW * 0.75)


# In this order: `classes=6` takes the first six. Append only, as the place in this table is part of a picture's seed.
DISEASES: dict[str, Callable[[np.random.Generator, Leaf, Floats, float], None]] = {
    "healthy": _healthy,
    "rust": _rust,
    "leaf_spot": _leaf_spot,
    "blight": _blight,
    "mosaic": _mosaic,
    "mildew": _mildew,
    "bacterial_spot": _bacterial_spot,
    "yellow_curl": _yellow_curl,
    "scorch": _scorch,
    "mold": _mold,
}


def _blemishes(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats) -> None:
    """Dirt, insect bites and a pale edge, on any leaf: no single spot gives a class away."""
    _paint(colour_HWC, _tint(rng, (0.36, 0.28, 0.16)), _spots(rng, leaf, int(rng.integers(0, 7)), 0.008, 0.03) * 0.75)
    _paint(colour_HWC, (0.70, 0.66, 0.32), np.clip(0.4 - leaf.depth_HW * 3, 0, 1) * rng.uniform(0, 0.9))


# Brushes


def _clouds(rng: np.random.Generator, size: int, cells: int) -> Floats:
    """Returns smooth noise (H, W) of about zero mean and unit variance with features of `size / cells` pixels."""
    coarse = Image.fromarray(rng.standard_normal((cells, cells), dtype=np.float32))
    smooth: Floats = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC), np.float32)
    return smooth * 1.4  # what the smoothing took away


def _soft_step(values_HW: Floats, threshold: float, softness: float) -> Floats:
    stepped: Floats = np.clip((values_HW - threshold) / softness, 0, 1)
    return stepped


def _patches(rng: np.random.Generator, leaf: Leaf, cells: int, share: float) -> Floats:
    """Returns blotches (H, W) in [0, 1] that cover about `share` of the leaf."""
    return _soft_step(_clouds(rng, leaf.size, cells), 1.0 - 2.0 * share, 0.7)


def _spots(
    rng: np.random.Generator, leaf: Leaf, count: int, smallest: float, largest: float, clusters: int = 0
) -> Floats:
    """Returns `count` antialiased discs (H, W) in [0, 1] on the blade; radii are shares of the picture's side."""
    if clusters:
        centres = rng.uniform((0.2, -0.6), (0.85, 0.6), (clusters, 2))
        spread = rng.normal(0, (0.10, 0.25), (count, 2))
        along, across = np.clip(centres[rng.integers(0, clusters, count)] + spread, (0.05, -0.9), (0.95, 0.9)).T
    else:
        along, across = rng.uniform((0.08, -0.9), (0.94, 0.9), (count, 2)).T
    xs, ys = leaf.place(along.astype(np.float32), across.astype(np.float32))
    radii = rng.uniform(smallest, largest, count) * leaf.size
    stretches = rng.uniform(0.75, 1.25, count)
    canvas = Image.new("L", (leaf.size * 2, leaf.size * 2))
    pen = ImageDraw.Draw(canvas)
    for x, y, radius, stretch in zip(xs * 2, ys * 2, radii * 2, stretches, strict=True):
        pen.ellipse((x - radius * stretch, y - radius / stretch, x + radius * stretch, y + radius / stretch), fill=255)
    return np.asarray(canvas.reduce(2), np.float32) / 255


def _blurred(values_HW: Floats, radius: float) -> Floats:
    image = Image.fromarray((np.clip(values_HW, 0, 1) * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)), np.float32) / 255


def _tint(rng: np.random.Generator, colour: tuple[float, float, float], spread: float = 0.2) -> Floats:
    """Returns the colour, a little different in every picture."""
    return np.asarray(colour, np.float32) * rng.uniform(1 - spread, 1 + spread, 3).astype(np.float32)


def _paint(
    colour_HWC: Floats, tint: Floats | tuple[float, float, float], alpha_HW: Floats, shade_HW: Floats | None = None
) -> None:
    """Blends `tint` (times `shade_HW`) into the picture in place, by `alpha_HW` in [0, 1]."""
    target = np.asarray(tint, np.float32) if shade_HW is None else np.asarray(tint, np.float32) * shade_HW[..., None]
    colour_HWC += (target - colour_HWC) * alpha_HW[..., None]


# The camera


def _photograph(rng: np.random.Generator, leaf: Leaf, colour_HWC: Floats) -> npt.NDArray[np.uint8]:
    """Returns the leaf on a ground, lit from one side, a little out of focus and noisy."""
    size = leaf.size
    ground = _tint(rng, GROUNDS[rng.integers(len(GROUNDS))], 0.06) * rng.uniform(0.7, 1.2)
    texture_HW = 1 + rng.uniform(0.02, 0.09) * _clouds(rng, size, int(rng.integers(3, 30)))
    picture_HWC = ground * texture_HW[..., None]
    picture_HWC *= (1 - 0.35 * np.clip(1 + leaf.depth_HW * 5, 0, 1))[..., None]  # the shadow around the leaf
    inside_HW = np.clip(leaf.depth_HW * (size * 0.25) + 0.5, 0, 1)
    picture_HWC += (colour_HWC - picture_HWC) * inside_HW[..., None]

    x_HW, y_HW = _grid(size)
    angle, strength = rng.uniform(0, 2 * math.pi), rng.uniform(0, 0.3)
    light_HW = 1 + strength * math.cos(angle) * x_HW + strength * math.sin(angle) * y_HW
    white_balance = rng.uniform(0.9, 1.1, 3) * rng.uniform(0.7, 1.2)
    picture_HWC *= light_HW[..., None] * white_balance.astype(np.float32)

    sharp = Image.fromarray((np.clip(picture_HWC, 0, 1) * 255).astype(np.uint8))
    focused = np.asarray(sharp.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9) * size / 96)), np.float32)
    noise_HWC = rng.standard_normal((size, size, 3), dtype=np.float32) * rng.uniform(2, 9)
    return np.clip(focused + noise_HWC + 0.5, 0, 255).astype(np.uint8)


GROUNDS = (
    (0.42, 0.33, 0.25),
    (0.55, 0.54, 0.52),
    (0.30, 0.36, 0.22),
    (0.72, 0.70, 0.66),
    (0.26, 0.24, 0.23),
    (0.45, 0.50, 0.55),
)


def drawn_leaves_folder(cache: Path) -> Path:
    """Returns where the synthetic data set lies in the cache, whether it is there or not."""
    return cache / f"synthetic-leaves-{DRAWN_CLASSES}x{DRAWN_PER_CLASS}-{DRAWN_SIZE}px"


def generated_leaves(cache: Path) -> Path:
    """Returns the folder of the synthetic data set in the cache, made now if it is not there."""
    folder = drawn_leaves_folder(cache)
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            draw_leaves(folder, DRAWN_CLASSES, DRAWN_PER_CLASS, DRAWN_SIZE)
    except OSError as error:
        raise DataError(f"the cache folder {str(cache)!r} cannot be written: {error.strerror}") from error
    except DataError:
        if not folder.exists():  # else another search has drawn them meanwhile
            raise
    return folder
