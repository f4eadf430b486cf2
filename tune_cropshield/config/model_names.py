"""The networks' names, without importing any of them."""

from __future__ import annotations

from tune_cropshield.config import registry
from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.errors import ConfigError

OWN_MODELS = tuple(registry.MODELS)
# Of torchvision's, these are known without its import, which takes PyTorch's.
COMMON_MODELS = ("efficientnet_b0", "resnet18", "resnet34", "resnet50")


def is_torchvisions(name: str) -> bool:
    """Tells whether a name that `check_model_name` has let through is that of a torchvision classifier."""
    return name not in OWN_MODELS and not registry.is_own(name)


def model_names() -> list[str]:
    """Returns every name that `build_model` knows, our own first."""
    from torchvision import models as zoo  # seconds to import

    return [*OWN_MODELS, *zoo.list_models(module=zoo)]


def check_model_name(name: str) -> str:
    """Returns `name` if it is known, a reference to a user's file with its whole path.

    Raises:
        ConfigError: an unknown name, with close and common ones; a reference that leads nowhere.
    """
    if name in OWN_MODELS or name in COMMON_MODELS:
        return name
    if registry.is_own(name):
        return registry.checked_name("model", name)
    known = model_names()
    if name in known:
        return name
    hint = did_you_mean(name, known, 3)
    common = ", ".join((*OWN_MODELS, *COMMON_MODELS))
    others = f"any other torchvision classifier ({len(known)} in all), or your own as file.py:name"
    raise ConfigError([f"unknown model {name!r}; {hint}known: {common}, {others}"])
