"""What is measured of a GPU's memory, and how a process is held to its share. These tests need a GPU."""

from __future__ import annotations

import pytest
import torch

from tune_cropshield.config.settings import TrialConfig
from tune_cropshield.device import find_card, num_gpus, used_mib
from tune_cropshield.memory.guard import cap_allocator, give_back
from tune_cropshield.memory.measure.process import Probe, Request

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CUDA = torch.device("cuda", 0)
TRIAL = TrialConfig(model="tiny_cnn", image_size=224, max_norm=1.0)


def test_the_card_is_described_and_its_memory_is_looked_at() -> None:
    card = find_card()

    assert card is not None and num_gpus() >= 1
    assert 0 < card.free_mib <= card.total_mib
    used = used_mib(0)
    assert used is None or 0 < used < card.total_mib


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_the_step_is_measured_within_its_share_and_a_batch_that_is_too_large_does_not_fit(cuda_graphs: bool) -> None:
    trial = TRIAL.model_copy(update={"cuda_graphs": cuda_graphs})

    with Probe(Request(trial, 22, share_mib=2000.0)) as probe:
        small, larger, too_large = (probe.measure(size) for size in (8, 64, 8192))

    assert small.peak_reserved_mib is not None and larger.peak_reserved_mib is not None
    assert small.peak_allocated_mib is not None and 0 < small.peak_allocated_mib <= small.peak_reserved_mib
    assert small.peak_reserved_mib < larger.peak_reserved_mib <= 2000.0
    assert larger.images_per_s is not None and larger.images_per_s > 0
    assert too_large.peak_reserved_mib is None and too_large.reason
    assert probe.context_mib is None or 100 <= probe.context_mib <= 2000


def test_a_process_is_held_to_its_share_until_the_cap_is_lifted() -> None:
    give_back(CUDA)
    before_mib = torch.cuda.memory_reserved(CUDA) / 2**20
    try:
        cap_allocator(before_mib + 100.0, CUDA)
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(200 * 2**20, dtype=torch.uint8, device=CUDA)
    finally:
        cap_allocator(None, CUDA)
    tensor = torch.empty(200 * 2**20, dtype=torch.uint8, device=CUDA)
    assert tensor.nbytes == 200 * 2**20
    del tensor
    assert give_back(CUDA) <= before_mib


def test_an_average_of_the_weights_takes_the_networks_memory_once_more() -> None:
    """ResNet-18 of 22 classes: 42.7 MiB of weights and statistics; moving their average takes nothing."""
    peaks = []
    for decay in (0.0, 0.999):
        trial = TrialConfig(model="resnet18", image_size=64, ema=decay)
        with Probe(Request(trial, 22, share_mib=4000.0)) as probe:
            peaks.append(probe.measure(32).peak_allocated_mib)
    none, averaged = peaks
    assert none is not None and averaged is not None
    assert averaged - none == pytest.approx(42.7, abs=4)
