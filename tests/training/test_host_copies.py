"""Copies on the CPU. From a GPU: tests/gpu/test_copies_from_gpu.py."""

from __future__ import annotations

import torch

from tune_cropshield.training.host_copies import _filled_room, copies_on_host, parts_of


def test_what_lies_on_the_cpu_is_copied_too() -> None:
    originals = [torch.ones(3), torch.ones(2, 4).t(), torch.tensor(5)]
    copies = copies_on_host(originals)
    for original in originals:
        original.zero_()
    assert [copy.tolist() for copy in copies] == [[1, 1, 1], [[1, 1]] * 4, 5]
    assert copies_on_host([]) == []


def test_the_place_of_each_holds_its_bytes_in_their_order_in_memory() -> None:
    originals = [
        torch.arange(40.0).reshape(2, 4, 5, 1).to(memory_format=torch.channels_last),
        torch.ones(600_000),
        torch.tensor(7.0),
        torch.zeros(0),
    ]
    places = _filled_room(originals)  # here its memory is ordinary: without a GPU none can be pinned
    assert [place.tolist()[:4] for place in places] == [[0, 5, 10, 15], [1, 1, 1, 1], [7], []]
    assert torch.equal(places[0].as_strided(originals[0].shape, originals[0].stride()), originals[0])


def test_parts_hold_no_more_than_they_may_unless_one_tensor_alone_does() -> None:
    tensors = [torch.zeros(size, dtype=torch.uint8) for size in (4, 6, 1, 30, 5, 5)]
    assert [[len(tensor) for tensor in part] for part in parts_of(tensors, 10)] == [[4, 6], [1], [30], [5, 5]]
    assert list(parts_of([], 10)) == []
