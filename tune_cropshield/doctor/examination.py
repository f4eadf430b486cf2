"""The whole examination: machine, photographs, loading, and each published rule of thumb measured here and judged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tune_cropshield.config.reference import REFERENCE_CLASSES
from tune_cropshield.config.settings import DataConfig, Fit
from tune_cropshield.device import find_card
from tune_cropshield.doctor.claims import (
    REFERENCE_IMAGE_SIZE,
    REFERENCE_MODELS,
    REFERENCE_WORKERS,
    Figure,
    Figures,
    Key,
    claims_about,
)
from tune_cropshield.doctor.loading import Loading, gain_behind, measure_loading
from tune_cropshield.doctor.machine import Machine, examine_machine
from tune_cropshield.doctor.memory_figures import EstimatedMemory, MeasuredMemory, Memory, memory_figures
from tune_cropshield.doctor.photographs import Photographs, examine_photographs
from tune_cropshield.doctor.speeds import CPU_IMAGE_SIZE, Speeds, measure_speeds
from tune_cropshield.doctor.verdicts import Verdict, judge
from tune_cropshield.training.models import build_model

# Shares of a minute on two cores, imports and estimates included; a folder of any size is looked at no longer.
PHOTOGRAPHS_S, LOADING_S, SPEEDS_S = 9.0, 6.0, 10.0


@dataclass(frozen=True)
class Examination:
    """All that was found."""

    device: str  # "cpu" or "cuda"
    machine: Machine
    photographs: Photographs
    drawn: bool  # the photographs are generated ones, as none were given
    loading: Loading
    speeds: dict[str, Speeds]  # by model
    verdicts: list[Verdict]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Returns one object for JSON."""
        photographs = asdict(self.photographs) | {"imbalance": self.photographs.imbalance, "drawn": self.drawn}
        steps = {
            model: {"images_per_s": speeds.images_per_s, "how": speeds.how} for model, speeds in self.speeds.items()
        }
        return {
            "device": self.device,
            "machine": asdict(self.machine),
            "photographs": photographs,
            "loading": asdict(self.loading) | {"gain": self.loading.gain},
            "steps": steps,
            "claims": [verdict.as_dict() for verdict in self.verdicts],
            "seconds": round(self.seconds, 1),
        }


def examine(
    data: DataConfig,
    fits: Iterable[Fit],
    drawn: bool,
    model: str | None,
    device: torch.device,
    cores: int,
    cache_dir: Path,
    tell: Callable[[str], object] = lambda what: None,
) -> Examination:
    """Examines everything.

    That takes a minute on a CPU of two cores, several on a GPU, where plans are measured in processes of their own. On
    a CPU the claims about memory are answered by the estimate.

    Args:
        data: which photographs, and how they are read and split.
        fits: how they may become squares.
        drawn: they are generated ones.
        model: the network to measure; None: the two that the rules are about.
        device: what to measure on.
        cores: how many may be used.
        cache_dir: where measured plans are kept.
        tell: called with what is being done.

    Raises:
        DataError: the photographs cannot be trained on.
    """
    started = time.perf_counter()
    torch.set_num_threads(cores)
    card = find_card() if device.type == "cuda" else None
    machine = examine_machine(card, cores, cache_dir)
    tell("the photographs")
    photographs = examine_photographs(data, PHOTOGRAPHS_S, cores, fits)
    tell("loading")
    loading = measure_loading(
        data, REFERENCE_IMAGE_SIZE if device.type == "cuda" else 2 * CPU_IMAGE_SIZE, device, LOADING_S
    )
    models = (model,) if model is not None else REFERENCE_MODELS
    claims = claims_about(models)
    figures: Figures = {}
    for name in models:
        figures |= _computed_figures(name)
    memory: Memory = MeasuredMemory(device, card, cache_dir) if card is not None else EstimatedMemory()
    figures |= memory_figures(models, claims, memory, tell)
    speeds = {}
    for name in models if device.type == "cuda" else models[:1]:
        tell(f"the speed of {name}")
        speeds[name] = measure_speeds(name, device, SPEEDS_S)
        figures |= speeds[name].figures
        if device.type == "cuda":
            torch.cuda.empty_cache()
    gains = {
        name: gain
        for name, found in speeds.items()
        if (gain := _amp_behind_the_loader(found, loading, cores)) is not None
    }
    return Examination(
        device.type,
        machine,
        photographs,
        drawn,
        loading,
        speeds,
        judge(claims, figures, gains),
        time.perf_counter() - started,
    )


def _computed_figures(model: str) -> Figures:
    """Returns the figures of `model` that need no measurement, and those that no minute of measuring gives."""
    parameters = sum(parameter.numel() for parameter in build_model(model, REFERENCE_CLASSES).parameters())
    return {
        Key("fp16_largest", model): Figure(torch.finfo(torch.float16).max, "computed"),
        Key("fp16_of_1e-7", model): Figure(
            float(torch.tensor(1e-7).half()), "computed", f"1e-8 becomes {float(torch.tensor(1e-8).half()):g}"
        ),
        Key("first_scale", model): Figure(torch.amp.GradScaler("cpu").get_scale(), "computed"),
        Key("parameters", model): Figure(parameters / 1e6, "computed", f"with {REFERENCE_CLASSES} classes"),
        Key("clip_epochs", model): Figure(
            None,
            note="a run of a minute cannot show saved epochs; compare trials of a search with and without max_norm",
        ),
    }


def _amp_behind_the_loader(speeds: Speeds, loading: Loading, cores: int) -> float | None:
    """Returns how many times as fast mixed precision is on a GPU behind a stock loader.

    The loader has as many processes as the rules ask for and cores hold. None where one of the steps was not timed.
    """
    plain, amp = speeds.images_per_s.get("fp32"), speeds.images_per_s.get("amp")
    if plain is None or amp is None:
        return None
    return gain_behind(loading.stock_images_per_s * min(REFERENCE_WORKERS, cores), plain, amp)
