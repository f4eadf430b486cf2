"""Name -> network with the right head: our CNNs, every torchvision classifier, or a user's own.

A network of your own is a class or function that is called as `Name(num_classes=K)` and makes a torch.nn.Module from
images (B, 3, H, W) to logits (B, K); its name goes into `model` of a settings file as file.py:Name.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tune_cropshield import torch_private
from tune_cropshield.config import registry
from tune_cropshield.config.model_names import check_model_name, is_torchvisions
from tune_cropshield.errors import ConfigError

WITH_AUXILIARY_HEADS = ("googlenet", "inception_v3")  # they return a tuple in training; we build them without


def _zoo() -> ModuleType:
    """Returns torchvision.models, whose import takes a while and is not needed for our own networks."""
    return importlib.import_module("torchvision.models")


def build_model(
    name: str,
    num_classes: int,
    pretrained: bool | str = False,
    freeze_backbone: bool = False,
    dropout: float | None = None,
) -> nn.Module:
    """Returns a network that maps images (B, 3, H, W) to logits (B, num_classes), weights in fp32 on the CPU.

    Parameter names are torchvision's own, so exported weights load there.

    Args:
        pretrained: True takes torchvision's default weights (downloaded on first use); a path takes a state dict saved
            as .safetensors, .pt or .pth. A classifier head of another number of classes is left at its random start.
        freeze_backbone: only the head learns; batch norms of the backbone keep their statistics.
        dropout: probability before the head; None keeps the architecture's own.

    Raises:
        ConfigError: an unknown name, or weights that do not match.
    """
    check_model_name(name)
    if pretrained is True and not is_torchvisions(name):
        raise ConfigError([f"{name} has no published weights: set pretrained = false or give a file"])
    model: nn.Module
    if name in registry.MODELS:
        model = registry.resolve("model", name)(num_classes, dropout)
    else:
        if is_torchvisions(name):
            kwargs = {"aux_logits": False, "init_weights": True} if name in WITH_AUXILIARY_HEADS else {}
            model = _zoo().get_model(name, weights=None, num_classes=num_classes, **kwargs)
        else:
            model = _own(name, num_classes)
        if dropout is not None:
            _set_dropout(model, dropout)
    if pretrained:
        weights = _published_weights(name) if pretrained is True else _read_weights(Path(pretrained))
        _load_matching(model, weights, source=str(pretrained) if pretrained is not True else f"torchvision's {name}")
    if freeze_backbone:
        freeze(model)
    return model


def _own(name: str, num_classes: int) -> nn.Module:
    """Returns the network that a user's own class or function makes, after a look at what it gives for an image."""
    make = registry.resolve("model", name)
    with registry.own_code("model", name):
        model = make(num_classes=num_classes)
    if not isinstance(model, nn.Module):
        raise ConfigError([f"model {name!r} must make a torch.nn.Module, but made {type(model).__name__}"])
    if not any(isinstance(module, nn.Linear | nn.Conv2d) for module in model.modules()):
        raise ConfigError([f"model {name!r} has no nn.Linear or nn.Conv2d that could be its last layer"])
    return model


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Does model.load_state_dict with weights that have been through a file or a copy.

    They have lost the versions of their layers there.

    They are taken for this PyTorch's own: MNASNet loads none without.
    """
    model.load_state_dict(torch_private.with_versions(weights, model), strict=strict)


def head_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Returns the name and module of the last layer with parameters of its own that maps features to classes."""
    heads = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return heads[-1]


def freeze(model: nn.Module) -> None:
    """Leaves only the head trainable.

    The backbone's batch norms stay in evaluation mode whenever `model.train()` is called.
    """
    head_name, _ = head_of(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(head_name + "."))
    for module in model.modules():
        if isinstance(module, torch_private.BatchNorm):
            module.register_forward_pre_hook(_use_running_statistics)


def _use_running_statistics(module: nn.Module, inputs: object) -> None:
    module.training = False


def _set_dropout(model: nn.Module, probability: float) -> None:
    """Sets the dropout of the classifier, or adds one in front of the head without changing any parameter's name."""
    head_name, head = head_of(model)
    parent = model.get_submodule(head_name.rpartition(".")[0]) if "." in head_name else None
    own = [module for module in parent.children() if isinstance(module, nn.Dropout)] if parent is not None else []
    for module in own:
        module.p = probability
    if not own:
        head.register_forward_pre_hook(lambda module, inputs: (F.dropout(inputs[0], probability, module.training),))


def _published_weights(name: str) -> dict[str, Tensor]:
    try:
        weights: dict[str, Tensor] = (
            _zoo().get_model_weights(name).DEFAULT.get_state_dict(progress=True, check_hash=True)
        )
        return weights
    except OSError as error:
        advice = 'set pretrained = false, or pretrained = "file" with a local state dict'
        raise ConfigError([f"the weights of {name} could not be downloaded ({error}): {advice}"]) from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    """Returns the state dict in `path`.

    Nothing in the file is executed (safetensors, or torch.load with weights_only).
    """
    if not path.is_file():
        raise ConfigError([f"pretrained weights {str(path)!r} do not exist"])
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            weights: dict[str, Tensor] = load_file(path)
            return weights
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError([f"pretrained weights {str(path)!r} cannot be read: {error}"]) from error
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError([f"pretrained weights {str(path)!r} hold no state dict"])
    return state


def _load_matching(model: nn.Module, weights: dict[str, Tensor], source: str) -> None:
    """Copies `weights` into `model`; only the head may differ in shape."""
    head_name, _ = head_of(model)
    own = model.state_dict()
    wrong = [
        name
        for name, value in own.items()
        if not name.startswith(head_name + ".") and (name not in weights or weights[name].shape != value.shape)
    ]
    if wrong:
        differ = f"{len(wrong)} tensors are missing or of another shape, first {wrong[0]}"
        raise ConfigError([f"{source} does not fit this model: {differ}"])
    load_weights(
        model,
        {name: weights[name] for name, value in own.items() if name in weights and weights[name].shape == value.shape},
        strict=False,
    )


def correct_momentum(model: nn.Module, accumulation: float) -> None:
    """Sets each batch norm's momentum m to 1 - (1 - m)^(1/k), where k is `accumulation`.

    The k micro-batches of a window then move its running statistics as far as one batch would. Call it once per model,
    and again with k'/k when k becomes k'. Momentum None (a cumulative average) is left alone.

    The normalisation itself still uses each micro-batch's own statistics: below about 16 images they are too noisy to
    train well (Wu and He, https://arxiv.org/abs/1803.08494, figure 1).
    """
    for module in model.modules():
        if isinstance(module, torch_private.BatchNorm) and module.momentum is not None:
            module.momentum = 1 - (1 - module.momentum) ** (1 / accumulation)
