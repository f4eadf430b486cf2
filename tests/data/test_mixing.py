"""Neighbours are mixed alike in every micro-batch, and targets tell the pixels' true shares."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from tune_cropshield.data.mixing import Mixing, beta_table, mix

MIXUP, CUTMIX, BOTH = Mixing(mixup=0.4), Mixing(cutmix=1.0), Mixing(mixup=0.4, cutmix=1.0)


def flat_pictures(count: int, size: int = 16) -> Tensor:
    """Returns pictures each filled with its own number."""
    return torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 3, size, size).contiguous()


def test_beta_tables_have_the_spread_of_their_distribution() -> None:
    for alpha, variance in ((0.2, 0.17857), (1.0, 0.08333), (8.0, 0.01471)):  # 1 / (4 (2 alpha + 1))
        table = beta_table(alpha)
        assert table.shape == (4096,)
        assert table.mean().item() == pytest.approx(0.5, abs=1e-6)
        assert table.var().item() == pytest.approx(variance, rel=0.05)
        assert table.min() >= 0
        assert table.max() <= 1


def test_a_beta_table_is_the_same_for_the_same_seed_only() -> None:
    assert torch.equal(beta_table(0.4, seed=3), beta_table(0.4, seed=3))
    assert not torch.equal(beta_table(0.4, seed=3), beta_table(0.4, seed=4))


def test_a_beta_table_needs_a_positive_alpha() -> None:
    with pytest.raises(ValueError, match=r"`alpha > 0` must hold for a Beta distribution, but got 0"):
        beta_table(0)


def test_both_alphas_zero_change_nothing() -> None:
    images, labels = flat_pictures(4), torch.tensor([3, 1, 2, 0])
    mixed, targets = mix(images, labels, torch.arange(4), mixing=Mixing(), seed=0, epoch=0)
    assert mixed is images
    assert targets.partner_labels_B is None


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH])
def test_labels_come_from_the_neighbour_and_an_odd_last_sample_stays(mixing: Mixing) -> None:
    images, labels = flat_pictures(5), torch.tensor([3, 1, 2, 0, 4])
    mixed, targets = mix(images, labels, torch.arange(5), mixing=mixing, seed=0, epoch=0)
    assert targets.labels_B.tolist() == [3, 1, 2, 0, 4]
    assert targets.partner_labels_B is not None
    assert targets.share_B is not None
    assert targets.partner_labels_B.tolist() == [1, 3, 0, 2, 4]
    assert targets.share_B[4] == 1
    assert torch.equal(mixed[4], images[4])


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH])
def test_a_lone_sample_stays_as_it_is(mixing: Mixing) -> None:
    mixed, targets = mix(flat_pictures(2)[1:], torch.tensor([6]), torch.tensor([9]), mixing=mixing, seed=0, epoch=0)
    assert torch.equal(mixed, flat_pictures(2)[1:])
    assert targets.share_B is not None
    assert targets.share_B.tolist() == [1.0]


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH])
def test_the_weight_is_the_own_share_of_all_pixels(mixing: Mixing) -> None:
    count = 400
    images = (
        torch.eye(2)[torch.arange(count) % 2][:, 0, None, None, None].expand(count, 3, 16, 16).contiguous()
    )  # 1, 0, 1, 0, ...
    mixed, targets = mix(images, torch.arange(count), torch.arange(count), mixing=mixing, seed=1, epoch=2)
    share_of_ones = mixed.mean(dim=(1, 2, 3))
    own = torch.where(torch.arange(count) % 2 == 0, share_of_ones, 1 - share_of_ones)
    assert targets.share_B is not None
    torch.testing.assert_close(targets.share_B, own, rtol=0, atol=1e-5)
    assert targets.share_B.min() >= 0
    assert targets.share_B.max() <= 1
    assert torch.equal(targets.share_B[0::2], targets.share_B[1::2])


def test_mixup_weighs_every_pixel_alike() -> None:
    mixed, targets = mix(flat_pictures(2), torch.tensor([0, 1]), torch.tensor([4, 7]), mixing=MIXUP, seed=0, epoch=0)
    assert targets.share_B is not None
    weight = float(targets.share_B[0])
    assert 0 < weight < 1
    torch.testing.assert_close(mixed[0], torch.full((3, 16, 16), 1 - weight), rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed[1], torch.full((3, 16, 16), weight), rtol=0, atol=1e-6)


def test_cutmix_swaps_one_box_between_the_pair() -> None:
    images = flat_pictures(64)
    mixed, _ = mix(images, torch.arange(64), torch.arange(64), mixing=CUTMIX, seed=0, epoch=0)
    taken = mixed != images
    partners = images.view(32, 2, 3, 16, 16).flip(1).reshape(64, 3, 16, 16)
    assert torch.equal(mixed, torch.where(taken, partners, images))
    assert torch.equal(taken[0::2], taken[1::2])
    assert torch.equal(taken[:, 0], taken[:, 2])
    rows, columns = taken[:, 0].any(2), taken[:, 0].any(1)
    assert torch.equal(taken[:, 0], rows[:, :, None] & columns[:, None, :])  # a rectangle
    for line in (rows, columns):
        assert ((line[:, 1:] != line[:, :-1]).sum(1) <= 2).all()  # in one piece
    assert taken.any(dim=(1, 2, 3)).float().mean() > 0.8


def test_both_kinds_are_used_at_even_odds() -> None:
    plan = BOTH.plan(torch.arange(4000), 0, 0, 16)
    by_cutmix = (plan.blend_B == 1).float().mean().item()
    assert by_cutmix == pytest.approx(0.5, abs=0.04)


def test_weights_of_full_cutmix_and_mixup_average_one_half_or_more() -> None:
    assert Mixing(mixup=1.0).plan(torch.arange(8000), 0, 0, 16).weight_B.mean().item() == pytest.approx(0.5, abs=0.02)
    # A box of side r is cut to r - r²/4 on average; with r² uniform, 1 - E[(r - r²/4)²] = 1 - 1/2 + 1/5 - 1/48.
    assert Mixing(cutmix=1.0).plan(torch.arange(8000), 0, 0, 64).weight_B.mean().item() == pytest.approx(
        0.679, abs=0.01
    )


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH])
def test_a_sample_is_mixed_alike_in_every_micro_batch(mixing: Mixing) -> None:
    images = torch.rand(11, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels, samples = torch.arange(11), torch.arange(50, 61)
    whole, targets = mix(images, labels, samples, mixing=mixing, seed=1, epoch=2)
    plan = mixing.plan(samples, 1, 2, 16)
    assert targets.share_B is not None
    for micro in (2, 4, 6):
        for start in range(0, 11, micro):
            part = slice(start, start + micro)
            alone, own = mix(images[part], labels[part], samples[part], mixing=mixing, seed=1, epoch=2)
            assert own.share_B is not None
            torch.testing.assert_close(alone, whole[part], rtol=0, atol=1e-6)
            torch.testing.assert_close(own.share_B, targets.share_B[part], rtol=0, atol=0)
            assert torch.equal(plan.slice(start, start + micro).images(images[part]), alone)


@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH])
def test_other_seeds_epochs_and_samples_give_other_weights(mixing: Mixing) -> None:
    base = mixing.plan(torch.arange(64), 0, 0, 32).weight_B
    for other in ((torch.arange(64), 1, 0), (torch.arange(64), 0, 1), (torch.arange(64, 128), 0, 0)):
        assert (mixing.plan(*other, 32).weight_B != base).float().mean() > 0.6


def test_a_plan_refuses_to_part_a_pair() -> None:
    with pytest.raises(AssertionError):
        MIXUP.plan(torch.arange(8), 0, 0, 16).slice(0, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mixed_pictures_are_channels_last_in_their_own_dtype(dtype: torch.dtype) -> None:
    mixed, _ = mix(
        flat_pictures(4).to(dtype), torch.arange(4), torch.arange(4), mixing=BOTH, seed=0, epoch=torch.tensor(3)
    )
    assert mixed.shape == (4, 3, 16, 16)
    assert mixed.dtype == dtype
    assert mixed.is_contiguous(memory_format=torch.channels_last)


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    with warnings.catch_warnings(action="ignore"):  # torch calls this mode a prototype
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        with warnings.catch_warnings(action="ignore"):
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mixing", [MIXUP, CUTMIX, BOTH])
def test_mixing_on_cuda_never_waits_and_equals_the_cpu(mixing: Mixing) -> None:
    images, labels, samples = torch.rand(7, 3, 16, 16), torch.arange(7), torch.arange(7)
    expected, targets = mix(images, labels, samples, mixing=mixing, seed=1, epoch=2)
    on_device = (images.cuda(), labels.cuda(), samples.cuda())
    mix(*on_device, mixing=mixing, seed=1, epoch=2)  # the first call copies the table
    with waiting_is_an_error():
        mixed, own = mix(*on_device, mixing=mixing, seed=1, epoch=2)
    assert own.share_B is not None
    torch.testing.assert_close(mixed.cpu(), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(own.share_B.cpu(), targets.share_B)
