"""The networks' names, without importing any of them."""

from __future__ import annotations

from tune_cropshield.config import registry
from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.config.timm_names import PREFIX, check_timm_name, is_timms, timm_facts, timms_own
from tune_cropshield.errors import ConfigError

OWN_MODELS = tuple(registry.MODELS)
# Of torchvision's, these are known without its import, which takes PyTorch's.
COMMON_MODELS = ("efficientnet_b0", "resnet18", "resnet34", "resnet50")


def is_torchvisions(name: str) -> bool:
    """Tells whether a name that `check_model_name` has let through is that of a torchvision classifier."""
    return name not in OWN_MODELS and not is_timms(name) and not registry.is_own(name)


def has_published_weights(name: str) -> bool:
    """Tells whether a library publishes weights of a network whose name `check_model_name` has let through."""
    return timm_facts(name).has_weights if is_timms(name) else is_torchvisions(name)


def model_names() -> list[str]:
    """Returns every name of ours and of torchvision, our own first."""
    from torchvision import models as zoo  # seconds to import

    return [*OWN_MODELS, *zoo.list_models(module=zoo)]


def check_model_name(name: str) -> str:
    """Returns `name` if it is known, a reference to a user's file with its whole path.

    Raises:
        ConfigError: an unknown name, with close and common ones; a reference that leads nowhere.
    """
    if name in OWN_MODELS or name in COMMON_MODELS:
        return name
    if is_timms(name):
        return check_timm_name(name)
    if registry.is_own(name):
        return registry.checked_name("model", name)
    known = model_names()
    if name in known:
        return name
    hint = f"did you mean {PREFIX}{name}? " if timms_own(name) else did_you_mean(name, known, 3)
    common = ", ".join((*OWN_MODELS, *COMMON_MODELS))
    others = (
        f"any other torchvision classifier ({len(known)} in all), {PREFIX}name for timm's, or your own as file.py:name"
    )
    raise ConfigError([f"unknown model {name!r}; {hint}known: {common}, {others}"])
