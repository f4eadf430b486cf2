"""Name -> network with the right head: our CNNs, every classifier of torchvision and timm, or a user's own.

A network of your own is a class or function that is called as `Name(num_classes=K)` and makes a torch.nn.Module from
images (B, 3, H, W) to logits (B, K); its name goes into `model` of a settings file as file.py:Name.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from tune_cropshield import torch_private
from tune_cropshield.config import registry
from tune_cropshield.config.model_names import check_model_name, has_published_weights, is_torchvisions
from tune_cropshield.config.timm_names import is_timms, timm_facts
from tune_cropshield.errors import ConfigError
from tune_cropshield.training.timm_models import build_timm

HEAD = "name_of_head"  # attribute of a network that `build_model` made
MOST_CANDIDATES = 8  # that are named where a head is none
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
    *,
    head: str | None = None,
    needs_head: bool = False,
    image_size: int | None = None,
) -> nn.Module:
    """Returns a network that maps images (B, 3, H, W) to logits (B, num_classes), weights in fp32 on the CPU.

    Parameter names are torchvision's or timm's own, so exported weights load there.

    Args:
        pretrained: True takes the library's published weights (downloaded on first use); a path takes a state dict
            saved as .safetensors, .pt or .pth. A classifier head of another number of classes is left at its random
            start.
        freeze_backbone: only the head learns; batch norms of the backbone keep their statistics.
        dropout: probability before the head; None keeps the architecture's own.
        head: the last layer's name; None where it is timm's, or the last that is defined.
        needs_head: what is done with the network asks for its head.
        image_size: px; only networks of timm that are built for one size look at it.

    Raises:
        ConfigError: an unknown name, a head that is none, or weights that do not match.
    """
    check_model_name(name)
    if pretrained is True and not has_published_weights(name):
        raise ConfigError([f"{name} has no published weights: set pretrained = false or give a file"])
    weights = _read_weights(Path(pretrained)) if isinstance(pretrained, str) and pretrained else None
    model: nn.Module
    has_dropout = dropout is None
    if name in registry.MODELS:
        has_dropout = True
        model = registry.resolve("model", name)(num_classes, dropout)
    elif is_timms(name):
        model, taken = build_timm(name, num_classes, pretrained is True, weights, dropout, image_size)
        has_dropout = has_dropout or taken
    elif is_torchvisions(name):
        kwargs = {"aux_logits": False, "init_weights": True} if name in WITH_AUXILIARY_HEADS else {}
        model = _zoo().get_model(name, weights=None, num_classes=num_classes, **kwargs)
    else:
        model = _own(name, num_classes)
    if head is not None or name not in registry.MODELS:
        needed = needs_head or freeze_backbone or not has_dropout or (bool(pretrained) and not is_timms(name))
        name_head(model, name, num_classes, head, needed=needed)
    if dropout is not None and not has_dropout:
        _set_dropout(model, dropout)
    if pretrained and not is_timms(name):
        found = weights if weights is not None else _published_weights(name)
        _load_matching(model, found, source=str(pretrained) if pretrained is not True else f"torchvision's {name}")
    if freeze_backbone:
        freeze(model)
    return model


def _own(name: str, num_classes: int) -> nn.Module:
    """Returns the network that a user's own class or function makes, after a look at what it is."""
    make = registry.resolve("model", name)
    _check_signature(name, make)
    with registry.own_code("model", name):
        model = make(num_classes=num_classes)
    if not isinstance(model, nn.Module):
        raise ConfigError([f"model {name!r} must make a torch.nn.Module, but made {_kind(model)}"])
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in model.parameters()):
        advice = "let your function show it an image before it returns it"
        raise ConfigError([f"model {name!r} has weights without a shape (nn.Lazy...): {advice}"])
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError([f"model {name!r} has no weights that could be trained"])
    return model


def _check_signature(name: str, make: Any) -> None:
    """Raises ConfigError where `make` cannot be called with num_classes alone."""
    if not callable(make):
        raise ConfigError([f"model {name!r} must be a class or a function, but is {_kind(make)}"])
    if isinstance(make, nn.Module):
        raise ConfigError(
            [f"model {name!r} is a network that is made already: name the class or function that makes it"]
        )
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of some built-in functions nothing is known
        return
    try:
        signature.bind(num_classes=2)
    except TypeError as error:
        call = f"{name.rpartition(':')[2]}(num_classes=...)"
        raise ConfigError([f"model {name!r} is called as {call}, but it takes {signature}: {error}"]) from None


def _kind(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__!r}"


def name_head(model: nn.Module, name: str, num_classes: int, head: str | None, *, needed: bool) -> None:
    """Notes which part of `model` is its head, for `head_of`.

    Args:
        name: the network's, as in a trial's settings.
        head: as in a trial's settings.
        needed: something asks for the head: where it is not known, that is then an error.

    Raises:
        ConfigError: with the parts that could be the head.
    """
    heads = timm_facts(name).heads if is_timms(name) else ()
    layers = [each for each, part in model.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    if head is not None:
        part = dict(model.named_modules()).get(head) if head else None
        if part is None or next(part.parameters(), None) is None:
            what = "no part" if part is None else "no weights in a part"
            raise ConfigError([f"head: {name} has {what} called {head!r}; {_candidates(model, num_classes)}"])
        setattr(model, HEAD, head)
    elif len(heads) == 1 and heads[0] in dict(model.named_modules()):
        setattr(model, HEAD, heads[0])
    elif not heads and layers and (is_torchvisions(name) or _outputs(model.get_submodule(layers[-1])) == num_classes):
        setattr(model, HEAD, layers[-1])
    elif needed:
        asking = "freeze_backbone, unfreeze_epochs, backbone_lr_factor, layer_decay, dropout, pretrained and agc"
        why = f"the last layer of {name} cannot be told, which {asking} ask for"
        raise ConfigError([f'head: {why}: say head = "..."; {_candidates(model, num_classes)}'])


def _outputs(layer: nn.Module) -> int | None:
    """Returns how many features or channels a layer gives, None where that is not known."""
    found = getattr(layer, "out_features", getattr(layer, "out_channels", None))
    return found if isinstance(found, int) else None


def _candidates(model: nn.Module, num_classes: int) -> str:
    """Returns the names of the layers that give as many outputs as there are classes; of all where none does."""
    layers = {
        name: _outputs(part) for name, part in model.named_modules() if name and next(part.children(), None) is None
    }
    known = [name for name, outputs in layers.items() if outputs is not None]
    fitting = [name for name in known if layers[name] == num_classes] or known
    return f"it could be {', '.join(fitting[-MOST_CANDIDATES:])}" if fitting else "no layer's outputs are known"


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """Does model.load_state_dict with weights that have been through a file or a copy.

    They have lost the versions of their layers there.

    They are taken for this PyTorch's own: MNASNet loads none without.
    """
    model.load_state_dict(torch_private.with_versions(weights, model), strict=strict)


def head_of(model: nn.Module) -> tuple[str, nn.Module]:
    """Returns the name and module of the part that maps features to classes: the last of ours, else what was noted."""
    name = getattr(model, HEAD, None)
    if name is not None:
        return name, model.get_submodule(name)
    return [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]


@dataclass(frozen=True)
class Frozen:
    """What `freeze` did to a network."""

    parameters: tuple[nn.Parameter, ...]  # that were trainable
    hooks: tuple[RemovableHandle, ...]  # of batch norms

    def undo(self) -> None:
        """Makes the backbone trainable again; its batch norms follow the next call of `model.train()`."""
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        for hook in self.hooks:
            hook.remove()


def freeze(model: nn.Module) -> Frozen:
    """Leaves only the head trainable.

    The backbone's batch norms stay in evaluation mode whenever `model.train()` is called.
    """
    of_head = {id(parameter) for parameter in head_of(model)[1].parameters()}
    parameters = tuple(
        parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) not in of_head
    )
    for parameter in parameters:
        parameter.requires_grad_(False)
    norms = [module for module in model.modules() if isinstance(module, torch_private.BatchNorm)]
    return Frozen(parameters, tuple(norm.register_forward_pre_hook(_use_running_statistics) for norm in norms))


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
        head.register_forward_pre_hook(partial(_drop_out, probability))


def _drop_out(probability: float, head: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Drops out features of all that a head is given: some have two inputs."""
    return tuple(
        F.dropout(value, probability, head.training)
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for value in inputs
    )


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
