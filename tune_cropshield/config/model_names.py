"""The networks' names, without importing any of them."""

from __future__ import annotations

import difflib

from tune_cropshield.errors import ConfigError

OWN_MODELS = ("tiny_cnn", "cropshield_cnn")
COMMON_MODELS = (
    "efficientnet_b0",
    "resnet18",
    "resnet34",
    "resnet50",
)  # of torchvision's: known without its import, which takes PyTorch's


def model_names() -> list[str]:
    """Returns every name `build_model` knows, our own first."""
    from torchvision import models as zoo  # seconds to import

    return [*OWN_MODELS, *zoo.list_models(module=zoo)]


def check_model_name(name: str) -> str:
    """Returns `name` if it is known; raises ConfigError listing close and common names otherwise."""
    if name in OWN_MODELS or name in COMMON_MODELS:
        return name
    known = model_names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}? " if close else ""
        common = ", ".join((*OWN_MODELS, *COMMON_MODELS))
        raise ConfigError(
            [
                (
                    f"unknown model {name!r}; {hint}known: {common}, or any other torchvision classifier "
                    f"({len(known)} in all)"
                )
            ]
        )
    return name
