"""Published rules of thumb about training, with their places, and the figures that are laid beside them.

The rules are those of the CropShield training guide: NOTES is its gradient_clipping_notes.md, GUIDE its
training_performance_guide.md; places are lines of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["x", "% less", "% slower", "GB", "MB", "images", "min/epoch", "M parameters", ""]

REFERENCE_MODELS = ("cropshield_cnn", "efficientnet_b0")
# Default micro-batch x accumulation, GUIDE 33 and 41.
REFERENCE_PAIRS = {"cropshield_cnn": (32, 1), "efficientnet_b0": (16, 2)}
OTHER_PAIR = (16, 2)  # of networks that no rule is about
REFERENCE_IMAGE_SIZE = 224  # GUIDE 351
REFERENCE_WORKERS = 8  # GUIDE 642
REFERENCE_TRAINING_IMAGES = 17_910  # 80 % of 22,387


@dataclass(frozen=True)
class Claim:
    """One rule: a figure, or a range of them."""

    key: str
    quantity: str  # what is measured for it
    says: str
    low: float | None  # in `unit`; None where nothing is said that has a figure
    high: float | None
    unit: Unit
    places: tuple[str, ...]
    model: str | None = None  # None: any network
    pair: tuple[int, int] | None = None  # (micro-batch, accumulation), where one is named
    card: str | None = None  # the laptop it is about


Source = Literal["measured", "estimate", "computed"]


@dataclass(frozen=True)
class Figure:
    """What was found for a rule, in the unit of its quantity."""

    value: float | None  # None where it was not measured
    source: Source = "measured"
    note: str = ""  # how it came about, or why there is none


@dataclass(frozen=True)
class Key:
    """What a figure is of. pair and card: None where the quantity does not depend on them."""

    quantity: str
    model: str
    pair: tuple[int, int] | None = None
    card: str | None = None


Figures = dict[Key, Figure]


RTX4060, RTX3050 = "rtx4060-laptop", "rtx3050-laptop"
CNN, B0 = REFERENCE_MODELS

CLAIMS = (
    # mixed precision
    Claim(
        "amp-speed",
        "amp_speed",
        "2x faster",
        2.0,
        2.0,
        "x",
        ("GUIDE 6", "GUIDE 56", "GUIDE 62", "GUIDE 1002", "GUIDE 1005"),
    ),
    Claim("amp-memory", "amp_memory", "40-50% less VRAM", 40, 50, "% less", ("GUIDE 1002", "GUIDE 1005")),
    Claim("amp-memory-50", "amp_memory", "50% less memory", 50, 50, "% less", ("GUIDE 6", "GUIDE 56")),
    Claim("amp-memory-45", "amp_memory", "~45% reduction", 45, 45, "% less", ("GUIDE 63",)),
    Claim("amp-memory-40", "amp_memory", "reduces VRAM by ~40%", 40, 40, "% less", ("GUIDE 846",)),
    Claim("amp-batch", "amp_batch", "a batch 2x larger", 2.0, 2.0, "x", ("GUIDE 65",)),
    Claim("amp-on-cpu", "amp_on_cpu", "only works on CUDA", None, None, "x", ("GUIDE 148", "GUIDE 957")),
    Claim("fp16-largest", "fp16_largest", "±65,504", 65504, 65504, "", ("GUIDE 125",)),
    Claim("fp16-underflow", "fp16_of_1e-7", "1e-7 underflows to 0", 0.0, 0.0, "", ("GUIDE 131",)),
    Claim("first-scale", "first_scale", "loss * 65536", 65536, 65536, "", ("GUIDE 134",)),
    Claim("channels-last", "channels_last_speed", "(no rule)", None, None, "x", ()),
    # accumulation
    Claim("accumulation-speed", "accumulation_speed", "neutral", 1.0, 1.0, "x", ("GUIDE 786", "GUIDE 1003")),
    Claim("accumulation-memory", "accumulation_memory", "no memory reduction", 0, 0, "% less", ("GUIDE 1003",)),
    Claim(
        "accumulation-memory-half",
        "accumulation_memory",
        "4GB instead of 8GB",
        50,
        50,
        "% less",
        ("GUIDE 213", "GUIDE 214", "GUIDE 215"),
    ),
    # clipping
    Claim("clip-below-1", "clip_cost", "<1% slower", 0, 1, "% slower", ("NOTES 33",)),
    Claim("clip-half", "clip_cost", "+0.5% slower", 0.5, 0.5, "% slower", ("NOTES 78",)),
    Claim("clip-1-to-2", "clip_cost", "~1-2% extra per step", 1, 2, "% slower", ("NOTES 135",)),
    Claim("clip-1", "clip_cost", "~1% slower", 1, 1, "% slower", ("NOTES 174", "NOTES 186", "GUIDE 446", "GUIDE 1004")),
    Claim("clip-saves-epochs", "clip_epochs", "~4-5% faster overall", 4, 5, "% less", ("NOTES 175",)),
    # memory of its configurations
    Claim("vram-4060-cnn-32", "vram", "~6-7GB", 6, 7, "GB", ("GUIDE 749",), CNN, (32, 1), RTX4060),
    Claim("vram-4060-b0-32", "vram", "~5-6GB", 5, 6, "GB", ("GUIDE 767",), B0, (16, 2), RTX4060),
    Claim("vram-4060-b0-64", "vram", "~5-6GB", 5, 6, "GB", ("GUIDE 785",), B0, (16, 4), RTX4060),
    Claim("vram-3050-cnn-32", "vram", "~3.5GB", 3.5, 3.5, "GB", ("GUIDE 803",), CNN, (16, 2), RTX3050),
    Claim("vram-3050-b0-32", "vram", "~3GB", 3, 3, "GB", ("GUIDE 818",), B0, (8, 4), RTX3050),
    # its formula
    Claim("formula-per-sample", "per_image", "2 MB per sample", 2, 2, "MB", ("GUIDE 317", "GUIDE 351"), B0),
    Claim("formula-model", "fixed", "0.5 GB for model and gradients", 0.5, 0.5, "GB", ("GUIDE 316", "GUIDE 350"), B0),
    Claim("formula-reserve", "context", "2 GB for PyTorch's overhead", 2, 2, "GB", ("GUIDE 318", "GUIDE 352"), B0),
    Claim("formula-prints", "formula", "prints batch_size=16", 16, 16, "images", ("GUIDE 355",), B0, (16, 4), RTX4060),
    Claim(
        "largest-batch",
        "largest_batch",
        "16 is the GPU's limit",
        16,
        16,
        "images",
        ("GUIDE 199", "GUIDE 303"),
        B0,
        None,
        RTX4060,
    ),
    # its table of batches
    Claim("table-4060-cnn-32", "planned_batch", "32 x 1", 32, 32, "images", ("GUIDE 364",), CNN, (32, 1), RTX4060),
    Claim("table-4060-b0-32", "planned_batch", "16 x 2", 16, 16, "images", ("GUIDE 365",), B0, (16, 2), RTX4060),
    Claim("table-4060-b0-64", "planned_batch", "16 x 4", 16, 16, "images", ("GUIDE 366",), B0, (16, 4), RTX4060),
    Claim("table-3050-cnn-32", "planned_batch", "16 x 2", 16, 16, "images", ("GUIDE 367",), CNN, (16, 2), RTX3050),
    Claim("table-3050-b0-32", "planned_batch", "8 x 4", 8, 8, "images", ("GUIDE 368",), B0, (8, 4), RTX3050),
    # speed and size of its networks
    Claim("epoch-cnn", "epoch_minutes", "~2.5 min/epoch", 2.5, 2.5, "min/epoch", ("GUIDE 750",), CNN, (32, 1), RTX4060),
    Claim(
        "epoch-b0",
        "epoch_minutes",
        "~1.8 min/epoch",
        1.8,
        1.8,
        "min/epoch",
        ("GUIDE 768", "GUIDE 786"),
        B0,
        (16, 2),
        RTX4060,
    ),
    Claim("size-cnn", "parameters", "4.7M parameters", 4.7, 4.7, "M parameters", ("GUIDE 737",), CNN),
    Claim("size-b0", "parameters", "4.0M parameters", 4.0, 4.0, "M parameters", ("GUIDE 755",), B0),
)


def reference_pair(model: str) -> tuple[int, int]:
    """Returns (micro-batch, accumulation) of the reference setting for `model`."""
    return REFERENCE_PAIRS.get(model, OTHER_PAIR)


def claims_about(models: tuple[str, ...]) -> list[tuple[Claim, str]]:
    """Returns (claim, model) for each claim about one of `models`; a rule about any network stands once for each."""
    return [(claim, model) for claim in CLAIMS for model in models if claim.model in (None, model)]
