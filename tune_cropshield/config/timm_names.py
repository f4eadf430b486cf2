"""timm's networks by name: which there are, and what each wants of its images.

timm is an optional package. It is imported where one of its networks is named, and nowhere else.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import cache

from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.errors import ConfigError
from tune_cropshield.shell import install_command

PREFIX = "timm:"
REQUIREMENT = "timm>=1.0"


@dataclass(frozen=True)
class TimmFacts:
    """What timm says of a network.

    mean, std: of pixels in [0, 1], as its published weights were trained with. image_size: px, likewise. fixed_size: it
    is built for one size of images. heads: names of its last layers, almost always one. has_weights: there are
    published ones. hub_id, url: where these lie; "" for neither.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    image_size: int
    fixed_size: bool
    heads: tuple[str, ...]
    has_weights: bool
    hub_id: str
    url: str


def is_timms(name: str) -> bool:
    """Tells whether `name` stands for a network of timm: timm:convnext_nano."""
    return name.startswith(PREFIX)


def check_timm_name(name: str) -> str:
    """Returns `name` (timm:NAME, or timm:NAME.TAG for certain weights of it) if timm is here and knows it.

    Raises:
        ConfigError: timm is not installed (with the command), or it knows no such network (with close names).
    """
    own = name.removeprefix(PREFIX)
    if importlib.util.find_spec("timm") is None:
        raise ConfigError([f"model {name!r} needs timm:  {install_command(REQUIREMENT)}"])
    plain, tagged = _names()
    if own in plain or own in tagged:
        return name
    architecture, _, tag = own.partition(".")
    if tag and architecture in plain:
        tags = [known for known in sorted(tagged) if known.startswith(f"{architecture}.")]
        weights = f"known: {', '.join(PREFIX + known for known in tags)}" if tags else "none are published"
        raise ConfigError([f"timm has no weights {tag!r} of {architecture}: {weights}"])
    hint = did_you_mean(name, [PREFIX + known for known in sorted(plain)], 3)
    raise ConfigError([f"timm has no network {own!r}; {hint}it has {len(plain)} (timm.list_models() names them)"])


def timms_own(name: str) -> bool:
    """Tells whether timm is here and has a network of this name, which is written without the prefix."""
    return importlib.util.find_spec("timm") is not None and name in _names()[0]


@cache
def timm_facts(name: str) -> TimmFacts:
    """Returns what timm says of a network that `check_timm_name` has let through."""
    from timm.models import PretrainedCfg, get_pretrained_cfg

    cfg = get_pretrained_cfg(name.removeprefix(PREFIX)) or PretrainedCfg(input_size=(3, 224, 224))  # of a few: nothing
    heads = cfg.classifier
    return TimmFacts(
        tuple(cfg.mean),
        tuple(cfg.std),
        int(cfg.input_size[-1]),
        bool(cfg.fixed_input_size),
        (heads,) if isinstance(heads, str) else tuple(heads or ()),
        bool(cfg.has_weights),
        str(cfg.hf_hub_id or ""),
        str(cfg.url or ""),
    )


@cache
def _names() -> tuple[frozenset[str], frozenset[str]]:
    """Returns timm's names without and with the tag of their weights."""
    import timm

    return frozenset(timm.list_models()), frozenset(timm.list_pretrained())
