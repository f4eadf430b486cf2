"""The GPU as its driver describes it, asked without becoming one of its users: a CUDA context of our own would take half a GiB."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch

MIB = 2**20


@dataclass(frozen=True)
class Card:
    """One GPU, now."""

    name: str
    driver: str
    total_mib: float
    free_mib: float  # less than total by what the driver, the desktop and all programs hold


def find_card() -> Card | None:
    """Returns the visible GPU with the least free memory, as trials may land on any; None where torch sees no GPU.

    Without NVML (nvidia-ml-py) CUDA is asked instead, which costs this process a context; the driver is then "unknown".
    """
    if not torch.cuda.is_available():
        return None
    indices = range(torch.cuda.device_count())
    with _nvml() as nvml:
        cards = [_card_from_nvml(nvml, index) if nvml is not None else _card_from_cuda(index) for index in indices]
    return min(cards, key=lambda card: card.free_mib)


def used_mib(index: int) -> float | None:
    """Returns what all programs together hold on visible GPU `index`, in MiB; None without NVML."""
    with _nvml() as nvml:
        return float(nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, index)).used) / MIB if nvml is not None else None


@contextmanager
def _nvml() -> Iterator[ModuleType | None]:
    """Yields NVML, ready for use, or None where it is not installed or does not work (no driver, some virtual machines)."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # pynvml's errors have no common base before 12, and a broken library raises OSError
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _handle(nvml: ModuleType, index: int) -> object:
    """Returns NVML's handle of torch's GPU `index`: CUDA_VISIBLE_DEVICES renumbers them for CUDA alone."""
    return nvml.nvmlDeviceGetHandleByIndex(torch.cuda._get_nvml_device_index(index))


def _card_from_nvml(nvml: ModuleType, index: int) -> Card:
    handle = _handle(nvml, index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Card(_text(nvml.nvmlDeviceGetName(handle)), _text(nvml.nvmlSystemGetDriverVersion()), memory.total / MIB, memory.free / MIB)


def _card_from_cuda(index: int) -> Card:
    free, total = torch.cuda.mem_get_info(index)
    return Card(torch.cuda.get_device_name(index), "unknown", total / MIB, free / MIB)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
