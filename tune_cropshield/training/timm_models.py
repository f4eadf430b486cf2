"""timm's networks, as their own library builds them and loads their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tune_cropshield.config.timm_names import PREFIX, timm_facts
from tune_cropshield.errors import ConfigError


def build_timm(
    name: str,
    num_classes: int,
    pretrained: bool = False,
    weights: dict[str, Tensor] | None = None,
    dropout: float | None = None,
    image_size: int | None = None,
) -> tuple[nn.Module, bool]:
    """Returns timm's network `name` (timm:NAME) for so many classes, and whether it has taken `dropout`.

    Its parameters have timm's names, so that its weights load into timm.create_model.

    Args:
        pretrained: with timm's published weights, downloaded on first use.
        weights: a state dict to begin with, as timm publishes it or as this network has it; for images of another size
            position embeddings are interpolated. A head of another number of classes is left at its random start.
        dropout: before the head; None keeps the network's own.
        image_size: px; only networks that are built for one size look at it.

    Raises:
        ConfigError: the weights cannot be had or do not fit.
    """
    facts, overlay = timm_facts(name), dict[str, Any]()
    if weights is not None:
        classes = [len(weights[f"{head}.weight"]) for head in facts.heads if f"{head}.weight" in weights]
        overlay = {"state_dict": dict(weights), "custom_load": False, "label_offset": 0}
        overlay |= {"num_classes": classes[0]} if classes else {}
    asked = {"img_size": image_size if facts.fixed_size else None, "drop_rate": dropout}
    try:
        model, taken = _created(
            name.removeprefix(PREFIX),
            {key: value for key, value in asked.items() if value is not None},
            num_classes=num_classes,
            pretrained=pretrained or weights is not None,
            pretrained_cfg_overlay=overlay,
        )
    except Exception as error:  # the hub's, torch.hub's and load_state_dict's errors come in many kinds
        if weights is not None:
            raise ConfigError([f"the weights do not fit {name}: {_in_short(error)}"]) from error
        if pretrained:
            advice = 'set pretrained = false, or pretrained = "file" with a local state dict'
            raise ConfigError([f"the weights of {name} could not be had ({_in_short(error)}): {advice}"]) from error
        raise
    if overlay:  # otherwise every copy of the network would copy the weights that it began with
        vars(model)["pretrained_cfg"].pop("state_dict", None)
    return model, "drop_rate" in taken


def weights_place(name: str) -> Path:
    """Returns where the published weights of timm's network `name` are kept, whether they are there or not."""
    import torch
    from huggingface_hub import constants

    facts = timm_facts(name)
    if facts.hub_id:
        return Path(constants.HF_HUB_CACHE) / f"models--{facts.hub_id.replace('/', '--')}"
    return Path(torch.hub.get_dir()) / "checkpoints" / facts.url.rpartition("/")[2]


def weights_url(name: str) -> str:
    """Returns an address that answers where the published weights of timm's network `name` can be downloaded."""
    from huggingface_hub import constants

    facts = timm_facts(name)
    return f"{constants.ENDPOINT}/{facts.hub_id}/resolve/main/config.json" if facts.hub_id else facts.url


def _created(name: str, asked: dict[str, Any], **given: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Returns timm.create_model's network, and what its function takes of `asked`; the rest is left out."""
    import timm

    while True:
        try:
            return timm.create_model(name, **given, **asked), asked
        except TypeError as error:
            refused = [key for key in asked if f"unexpected keyword argument '{key}'" in str(error)]
            if not refused:
                raise
            del asked[refused[0]]


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
