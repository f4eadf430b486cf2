"""What is asked of a network before anything is decoded or written: whether it can be trained as the settings say."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from tune_cropshield.config import registry
from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.config.timm_names import is_timms
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.build import build_trainer
from tune_cropshield.training.models import build_model, name_head

# Sides in px that are suggested where another cannot be taken; some networks take a single one.
COMMON_SIZES = (16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 240, 256, 288, 299, 320, 384, 448, 480, 512, 518)
CPU = torch.device("cpu")
CLASSES = 2  # any number does: sizes do not depend on it
# Files of these folders are not a user's own: Python's library, what is installed, and this package.
LIBRARIES = (*(sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")), str(Path(__file__).parents[1]))


class Fault(NamedTuple):
    """Why a network cannot be trained. of_size: it may be because of the size of its images."""

    text: str
    of_size: bool


def check_network(trial: TrialConfig) -> None:
    """Raises ConfigError when the network of `trial` cannot be trained as its settings say.

    It gives no logits, cannot take a size of its images, or so few at once, its head is not known where something asks
    for it, the file that it starts from is missing or of another network, adaptive clipping has nothing to clip, or an
    optimizer of the user's own does not keep the learning rates of its groups.
    """
    if trial.model not in registry.MODELS:  # ours take every size that may be asked for
        check_sizes(trial.model, _sizes(trial), built_for=trial.final_size)
    if trial.model not in registry.MODELS or trial.head is not None:
        of_ours = trial.dropout is not None or bool(trial.pretrained)  # timm sees to these itself
        needed = (
            trial.freeze_backbone
            or trial.treats_head_apart
            or trial.agc != "none"
            or (of_ours and not is_timms(trial.model))
        )
        network = _network(trial.model, False, None, trial.final_size)
        name_head(network, trial.model, CLASSES, trial.head, needed=needed)
    check_micro_batch(trial)
    if isinstance(trial.pretrained, str):  # published weights may have to be downloaded first
        check_pretrained(trial, CLASSES)
    if trial.agc != "none" and trial.freeze_backbone:
        reason = "adaptive clipping does not touch the last layer, and freeze_backbone trains nothing else"
        raise ConfigError([f"agc: {reason}, but got agc = {trial.agc}: take max_norm or clip_value"])
    if registry.is_own(trial.optimizer) and trial.treats_head_apart:
        with registry.own_code("optimizer", trial.optimizer), torch.random.fork_rng(devices=[]):
            build_trainer(trial.model_copy(update={"pretrained": False}), CLASSES, torch.zeros(1).long(), CPU)


def check_micro_batch(trial: TrialConfig) -> None:
    """Raises ConfigError when `trial` would train on fewer images at once than its network can be trained on."""
    micro_batch, _ = trial.pair
    smallest = smallest_micro_batch(trial) if micro_batch == 1 else 1
    if micro_batch < smallest:
        fault = _fault_of(trial, min(_sizes(trial)), micro_batch)
        assert fault is not None
        name = "effective_batch" if trial.micro_batch is None else "micro_batch"
        where = f"{trial.model} at {min(_sizes(trial))} px"
        raise ConfigError(
            [f"{name}: {where} cannot be trained on single images ({fault.text}): take {smallest} or more"]
        )


def smallest_micro_batch(trial: TrialConfig) -> int:
    """Returns the fewest images that a training step of `trial` can work on at once: 2 or 1.

    Batch norm has no statistics of a single image whose feature maps have come down to one pixel.
    """

    def faults(images: int) -> list[Fault | None]:
        return [_fault_of(trial, size, images) for size in _sizes(trial)]

    return 2 if any(faults(1)) and not any(faults(2)) else 1


def _fault_of(trial: TrialConfig, size: int, images: int) -> Fault | None:
    return _fault(trial.model, size, images, trial.freeze_backbone, trial.head, trial.final_size)


def _sizes(trial: TrialConfig) -> set[int]:
    """Returns the sides, in px, of the images that `trial` trains on."""
    return {trial.image_size, *trial.progressive_sizes.values()}


def check_sizes(model: str, sizes: Iterable[int], *, built_for: int | None = None) -> None:
    """Raises ConfigError when `model` cannot take square images of one of `sizes`, in px.

    Its feature maps vanish, say, or it was made for another size.

    Args:
        built_for: the size, in px, that a network of timm is built for where that is fixed; None for each of `sizes`.
    """
    for size in sorted(set(sizes)):
        fault = _fault(model, size, built_for=built_for or size)
        if fault is None:
            continue
        what = f"image_size: {model} cannot take pictures of {size} px ({fault.text})"
        if built_for not in (None, size) and _fault(model, size, built_for=size) is None:
            raise ConfigError([f"{what}: it is built for one size, leave progressive_sizes out"])
        if fault.of_size and (other := _size_taken(model, size)) is not None:
            raise ConfigError([f"{what}: {other} px works"])
        if registry.is_own(model):
            raise ConfigError([f"model: {model} cannot be trained: {fault.text}"])
        raise ConfigError([f"{what}: take another network"])


def _size_taken(model: str, size: int) -> int | None:
    """Returns a common side, in px, that `model` takes: the next larger one, else the next smaller one."""
    others = [known for known in COMMON_SIZES if known > size]
    others += [known for known in reversed(COMMON_SIZES) if known < size] if registry.is_own(model) else []
    return next((known for known in others if _fault(model, known, built_for=known) is None), None)


def check_pretrained(trial: TrialConfig, num_classes: int) -> None:
    """Raises ConfigError when the weights that `trial` starts from are missing, damaged or of another network."""
    if trial.pretrained:
        build_model(trial.model, num_classes, trial.pretrained, head=trial.head, image_size=trial.final_size)


@cache
def _fault(
    model: str,
    size: int,
    images: int = 2,
    freeze_backbone: bool = False,
    head: str | None = None,
    built_for: int | None = None,
) -> Fault | None:
    """Returns why a training step cannot run on `images` of `size`, or its network not be used afterwards; else None.

    A user's own network is also evaluated, and asked for gradients.
    """
    # A user's own network draws its weights on the CPU, and a trial may be under way.
    with torch.random.fork_rng(devices=[]):
        network = _network(model, freeze_backbone, head, built_for)
        if not registry.is_own(model):
            with torch.no_grad():
                return _fault_in(network.train(), size, images)
        fault = _fault_in(network.train(), size, images) or _fault_of_gradients(network, size, images)
        if fault is None:
            with torch.no_grad():
                fault = _fault_in(network.eval(), size, images)
                fault = fault and fault._replace(text=f"in evaluation, {fault.text}")
        return fault


def _fault_of_gradients(network: nn.Module, size: int, images: int) -> Fault | None:
    """Returns why no gradients of `network`'s logits can be computed; None where they can."""
    try:
        logits_BK = network(torch.zeros(images, 3, size, size))
        torch.autograd.grad(logits_BK.sum(), [p for p in network.parameters() if p.requires_grad], allow_unused=True)
    except Exception as error:
        return Fault(f"no gradients can be computed: {_in_short(error)}", of_size=False)
    return None


def _fault_in(network: nn.Module, size: int, images: int) -> Fault | None:
    """Returns why `network`, in the mode that it is in, is none that maps images to logits; None where it is."""
    images_BCHW = torch.zeros(images, 3, size, size, device=next(network.parameters()).device)
    before = images_BCHW._version
    try:
        logits_BK = network(images_BCHW)
    except (Exception, SystemExit) as error:  # every network fails in its own way
        return Fault(_in_short(error), of_size=True)
    if not isinstance(logits_BK, torch.Tensor) or logits_BK.shape != (images, CLASSES):
        shape = tuple(logits_BK.shape) if isinstance(logits_BK, torch.Tensor) else type(logits_BK).__name__
        expected = f"for {images} images and {CLASSES} classes, not logits ({images}, {CLASSES})"
        return Fault(f"it gives {shape} {expected}", of_size=False)
    if images_BCHW.device.type != "meta" and bool(
        (logits_BK >= 0).all() and ((logits_BK.sum(1) - 1).abs() < 1e-5).all()
    ):
        advice = "leave its softmax or sigmoid out, the loss has one"
        return Fault(f"it gives probabilities, which add up to 1, and not logits: {advice}", of_size=False)
    if logits_BK.dtype != torch.float32:
        found = str(logits_BK.dtype).removeprefix("torch.")
        return Fault(f"it gives {found} for float32 images, not float32", of_size=False)
    if images_BCHW._version != before:
        return Fault("it changes the images that it is given, in place: let it work on a copy", of_size=False)
    return None


def _in_short(error: BaseException) -> str:
    """Returns what a network's failure says, and where in a user's own file it was."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(LIBRARIES)]
    text = " ".join(str(error).split())[:120].rstrip(".")
    if not frames:
        return text
    return f"{type(error).__name__}: {text} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


@cache
def _network(model: str, freeze_backbone: bool, head: str | None, built_for: int | None) -> nn.Module:
    """Returns the network: without numbers, but for a user's own, which may need them."""
    build = partial(build_model, model, CLASSES, freeze_backbone=freeze_backbone, head=head, image_size=built_for)
    if registry.is_own(model):
        return build()
    try:
        with torch.device("meta"):
            return build()
    except (NotImplementedError, RuntimeError):  # RegNet computes its widths with tensors
        return build().to("meta")
