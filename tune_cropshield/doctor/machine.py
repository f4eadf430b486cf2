"""What this machine is: GPU, driver, memory, cores, disk, versions."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from tune_cropshield.device import Card, num_gpus

PACKAGES = ("torch", "torchvision", "ray", "optuna", "tensorboard")


@dataclass(frozen=True)
class Machine:
    """This machine, now."""

    gpu: str | None  # the GPU with the least free memory; None without one
    driver: str | None
    vram_mib: float | None
    vram_free_mib: float | None
    gpus: int
    cores: int  # that we may use
    system: str
    python: str
    versions: dict[str, str]  # of packages that are there
    cache: str  # the folder
    disk_free_gib: float  # where the cache is


def examine_machine(card: Card | None, cores: int, cache_dir: Path) -> Machine:
    """Returns what is known of this machine. card: as its driver describes it; cores: that we may use."""
    return Machine(
        gpu=card.name if card is not None else None,
        driver=card.driver if card is not None else None,
        vram_mib=card.total_mib if card is not None else None,
        vram_free_mib=card.free_mib if card is not None else None,
        gpus=num_gpus(),
        cores=cores,
        system=platform.platform(terse=True),
        python=platform.python_version(),
        versions={name: version for name in PACKAGES if (version := _version(name)) is not None},
        cache=str(cache_dir),
        disk_free_gib=shutil.disk_usage(_there(cache_dir)).free / 2**30,
    )


def _version(package: str) -> str | None:
    """Returns an installed package's version without importing it: Ray alone would take seconds."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _there(folder: Path) -> Path:
    """Returns the closest folder above that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())
