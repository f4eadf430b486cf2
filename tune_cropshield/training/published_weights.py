"""Whether a network's published weights can be had: they lie here already, or their server answers."""

from __future__ import annotations

import importlib
import threading
import urllib.request
from functools import cache
from pathlib import Path

import torch

from tune_cropshield.config.timm_names import is_timms
from tune_cropshield.training import timm_models

ANSWER_S = 5.0  # that a server may take
LOOK_UP_S = 8.0  # in all: looking up its name may take half a minute where there is no network


def weights_file(model: str) -> Path:
    """Returns where the published weights of a network are kept, whether they are there or not."""
    if is_timms(model):
        return timm_models.weights_place(model)
    return Path(torch.hub.get_dir()) / "checkpoints" / _url(model).rpartition("/")[2]


@cache
def weights_can_be_had(model: str) -> bool:
    """Tells whether the published weights of a network lie here, or could be downloaded now.

    It takes 8 s at most; nothing is downloaded.
    """
    return weights_file(model).exists() or _answers(_url(model))


def _url(model: str) -> str:
    if is_timms(model):
        return timm_models.weights_url(model)
    zoo = importlib.import_module("torchvision.models")
    return str(zoo.get_model_weights(model).DEFAULT.url)


def _answers(url: str) -> bool:
    """Tells whether a file can be downloaded, asked as torch.hub would."""
    answered = threading.Event()

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=ANSWER_S):
                answered.set()
        except (OSError, ValueError):  # no network, no such name, no permission, an address that is none
            pass

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(LOOK_UP_S)
    return answered.is_set()
