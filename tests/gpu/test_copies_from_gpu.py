"""Copies of what lies on a GPU. This test needs one."""

from __future__ import annotations

import pytest
import torch

from tune_cropshield.training.host_copies import copies_on_host

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def test_copies_on_the_host_are_equal_keep_their_strides_and_live_on() -> None:
    generator = torch.Generator("cuda").manual_seed(0)
    small = [torch.randn(3, 5, generator=generator, device="cuda") for _ in range(400)]
    others = [
        torch.randn(8, 4, 3, 3, generator=generator, device="cuda").to(memory_format=torch.channels_last),
        torch.randn(600, 700, generator=generator, device="cuda"),  # larger than what is joined
        torch.randn(6, 8, generator=generator, device="cuda")[:, ::2],  # with gaps
        torch.tensor(7, device="cuda"),
        torch.zeros(0, device="cuda"),
        torch.randn(4, 2, device="cuda", generator=generator).half().t(),
        torch.arange(5),  # on the CPU
    ]
    originals = [*small, *others]
    copies = copies_on_host(originals)
    expected = [tensor.to("cpu", copy=True) for tensor in originals]
    for tensor in originals:
        tensor.zero_()
    torch.cuda.synchronize()
    for copy, original, value in zip(copies, originals, expected, strict=True):
        assert copy.device.type == "cpu" and copy.dtype == value.dtype and torch.equal(copy, value)
        if original.is_contiguous() or original.is_contiguous(memory_format=torch.channels_last):
            assert copy.stride() == original.stride()
