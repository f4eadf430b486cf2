"""The whole examination: machine, photographs, loading, and each of the guide's claims measured here and judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tune_cropshield.device import find_card
from tune_cropshield.doctor.claims import GUIDES_IMAGE_SIZE, GUIDES_MODELS, GUIDES_WORKERS, claims_about
from tune_cropshield.doctor.constants import constant_figures
from tune_cropshield.doctor.figures import Figures
from tune_cropshield.doctor.loading import Loading, gain_behind, measure_loading
from tune_cropshield.doctor.machine import Machine, examine_machine
from tune_cropshield.doctor.memory_figures import EstimatedMemory, MeasuredMemory, Memory, memory_figures
from tune_cropshield.doctor.photographs import Photographs, examine_photographs
from tune_cropshield.doctor.speeds import CPU_IMAGE_SIZE, Speeds, measure_speeds
from tune_cropshield.doctor.verdicts import Verdict, judge

# Shares of a minute on two cores, imports and estimates included; a folder of any size is looked at no longer.
PHOTOGRAPHS_S, LOADING_S, SPEEDS_S = 9.0, 6.0, 10.0


@dataclass(frozen=True)
class Examination:
    """All that was found. speeds: by model; drawn: the photographs are generated ones, as none were given."""

    device: str
    machine: Machine
    photographs: Photographs
    drawn: bool
    loading: Loading
    speeds: dict[str, Speeds]
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
    root: Path,
    drawn: bool,
    model: str | None,
    device: torch.device,
    cores: int,
    cache_dir: Path,
    tell: Callable[[str], object] = lambda what: None,
) -> Examination:
    """Examines everything; a minute on a CPU of two cores, several on a GPU, where memory is measured in processes of
    its own.

    root: photographs; drawn: they are generated ones. model: the network to measure; None for the guide's two. On a CPU
    the guide's claims about memory are answered by the estimate. tell: called with what is being done. Raises DataError
    for photographs that cannot be trained on.
    """
    started = time.perf_counter()
    torch.set_num_threads(cores)
    card = find_card() if device.type == "cuda" else None
    machine = examine_machine(card, cores, cache_dir)
    tell("the photographs")
    photographs = examine_photographs(root, PHOTOGRAPHS_S, cores)
    tell("loading")
    loading = measure_loading(
        root, GUIDES_IMAGE_SIZE if device.type == "cuda" else 2 * CPU_IMAGE_SIZE, device, LOADING_S
    )
    models = (model,) if model is not None else GUIDES_MODELS
    claims = claims_about(models)
    figures: Figures = {}
    for name in models:
        figures |= constant_figures(name)
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


def _amp_behind_the_loader(speeds: Speeds, loading: Loading, cores: int) -> float | None:
    """Returns what mixed precision gives when the guide's loader feeds the step, on a GPU: as many processes as it asks
    for and cores hold.
    """
    plain, amp = speeds.images_per_s.get("fp32"), speeds.images_per_s.get("amp")
    if plain is None or amp is None:
        return None
    return gain_behind(loading.stock_images_per_s * min(GUIDES_WORKERS, cores), plain, amp)
