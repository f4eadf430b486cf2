"""What is searched where only photographs, or photographs and a network, were given: one of the shipped spaces.

A network's family is how it is trained: fine-tuned from published weights or from scratch, with AdamW or with SGD. The
ranges of each family stand in one shipped space, with their reasons; another network of the family takes its place
there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from tune_cropshield.config.model_names import has_published_weights, is_torchvisions
from tune_cropshield.config.timm_names import PREFIX, is_timms, timm_facts

# (optimizer, fine-tuned) -> the shipped space that holds the ranges.
SPACES = {
    ("adamw", False): "cropshield_cnn.toml",
    ("adamw", True): "efficientnet_b0.toml",
    ("sgd", False): "resnet50_onecycle.toml",
    ("sgd", True): "resnet50_fine_tuning.toml",
}
ON_GPU, ON_CPU = "efficientnet_b0", "tiny_cnn"  # what is trained where no network was asked for
SMALL = "tiny_cnn.toml"  # the space of tiny_cnn
# These are trained with SGD as their authors did; the others take AdamW, which forgives most.
WITH_SGD = ("resnet", "resnext", "wide_resnet")
# The side, in px, that a network of torchvision was made for, where it is not 224 (its weights say so).
OWN_SIZES = {
    "inception_v3": 299,
    "efficientnet_b1": 240,
    "efficientnet_b2": 288,
    "efficientnet_b3": 300,
    "efficientnet_b4": 380,
    "efficientnet_b5": 456,
    "efficientnet_b6": 528,
    "efficientnet_b7": 600,
    "efficientnet_v2_s": 384,
    "efficientnet_v2_m": 480,
    "efficientnet_v2_l": 480,
    "swin_v2_t": 256,
    "swin_v2_s": 256,
    "swin_v2_b": 256,
}
USUAL_SIZE = 224
FIXED_SIZES = ("vit_", "maxvit", "inception")  # these take no other size, or none as small as the demonstration's
WEIGHTS_OF_ANOTHER_SIZE = ("vit_h_14",)  # its published weights are for 518 px, the network that is built for 224
# EfficientNet-B0 at 224 px takes 0.9 GiB with 16 images at once, the fewest that batch norm likes. Below this much
# memory it is trained on images of 128 px, a third of that.
ENOUGH_MIB = 1536
SIZE_BELOW = 128
# On a CPU a torchvision network takes hours: as many trials as say anything.
TRIALS_ON_CPU = 12

# `--quick`: at most so much, of any space.
QUICK_TRIALS, QUICK_EPOCHS, QUICK_TIME = 8, 8, "5m"
QUICK_SIZES = {"cuda": 128, "cpu": 48}  # px, of the network that was chosen by us


@dataclass(frozen=True)
class Family:
    """How a network is searched.

    Attributes:
        space: the shipped space that holds the ranges.
        trial, search: what goes before that file's tables of these names.
    """

    space: str
    trial: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)


def default_network(device: Literal["cpu", "cuda"]) -> str:
    """Returns the network that is trained where none was asked for."""
    return ON_GPU if device == "cuda" else ON_CPU


def has_weights(model: str) -> bool:
    """Tells whether there are published weights for the network that `model` builds."""
    return has_published_weights(model) and model not in WEIGHTS_OF_ANOTHER_SIZE


def has_fixed_size(model: str) -> bool:
    """Tells whether a network cannot be trained on images much smaller than those that it was made for."""
    if is_timms(model):
        return timm_facts(model).fixed_size
    return is_torchvisions(model) and model.startswith(FIXED_SIZES)


def own_size(model: str) -> int:
    """Returns the side, in px, of the images that a network was made for."""
    return timm_facts(model).image_size if is_timms(model) else OWN_SIZES.get(model, USUAL_SIZE)


def optimizer_for(model: str) -> Literal["adamw", "sgd"]:
    """Returns the optimizer that a network is usually trained with."""
    known = is_torchvisions(model) or is_timms(model)
    return "sgd" if known and model.removeprefix(PREFIX).startswith(WITH_SGD) else "adamw"


def family_of(
    model: str,
    device: Literal["cpu", "cuda"],
    weights: bool,
    *,
    memory_mib: float | None = None,
    asked_for: bool = True,
    quick: bool = False,
) -> Family:
    """Returns how a network is searched on photographs.

    Args:
        weights: its published weights can be had.
        memory_mib: of the GPU, free for us; None where it is not known.
        asked_for: the network was named, not chosen by us: its size then stays what it was made for.
        quick: a search of a few minutes is wanted.
    """
    if model == ON_CPU:
        small = {"image_size": QUICK_SIZES["cpu"]} if quick and not asked_for else {}
        return Family(SMALL, small)
    fine_tuned = weights and has_weights(model)
    trial: dict[str, Any] = {
        "model": model,
        "pretrained": fine_tuned,
        "image_size": own_size(model),
    }
    if not asked_for and memory_mib is not None and memory_mib < ENOUGH_MIB:
        trial["image_size"] = SIZE_BELOW
    if not asked_for and quick:
        trial["image_size"] = min(trial["image_size"], QUICK_SIZES["cuda"])
    search = {"trials": TRIALS_ON_CPU} if device == "cpu" else {}
    return Family(SPACES[optimizer_for(model), fine_tuned], trial, search)
