"""Draws depend on (seed, epoch, sample, number) alone, and look random."""

from __future__ import annotations

import torch

from tune_cropshield.data.noise import uniform


def test_draws_are_these_very_numbers() -> None:
    draws = uniform(7, 3, torch.tensor([0, 22_386]), 3) * 2**24
    assert draws.to(torch.int64).tolist() == [[5798305, 13951238, 1723758], [4235436, 15702499, 10790660]]


def test_draws_equal_the_hash_worked_out_in_python_integers() -> None:
    def reference(seed: int, epoch: int, sample: int, draw: int) -> float:
        x = (
            seed * 0x3C6EF372FE94F82B
            + epoch * 0xBB67AE8584CAA73B
            + sample * 0x6A09E667F3BCC909
            + draw * 0x9E3779B97F4A7C15
        )
        x %= 1 << 64
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % (1 << 64)
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % (1 << 64)
        return (x >> 40) / 2**24

    samples = torch.tensor([0, 1, 5, 22_386, 2**40])
    expected = [[reference(123, 4, int(sample), draw) for draw in range(9)] for sample in samples]
    assert uniform(123, 4, samples, 9).tolist() == expected


def test_draws_lie_between_zero_and_below_one() -> None:
    draws = uniform(0, 0, torch.arange(20_000), 16)
    assert draws.shape == (20_000, 16)
    assert draws.dtype == torch.float32
    assert draws.min() >= 0
    assert draws.max() < 1


def test_a_sample_gets_the_same_draws_in_every_batch_and_order() -> None:
    samples = torch.tensor([5, 17, 3, 99, 5])
    whole = uniform(1, 2, samples, 16)
    assert torch.equal(whole[:2], uniform(1, 2, samples[:2], 16))
    assert torch.equal(whole.flip(0), uniform(1, 2, samples.flip(0), 16))
    assert torch.equal(whole[0], whole[4])


def test_asking_for_more_draws_leaves_the_first_ones_unchanged() -> None:
    samples = torch.arange(8)
    assert torch.equal(uniform(1, 2, samples, 16)[:, :5], uniform(1, 2, samples, 5))


def test_an_epoch_in_a_tensor_draws_what_an_int_draws() -> None:
    samples = torch.arange(8)
    assert torch.equal(uniform(1, 41, samples, 4), uniform(1, torch.tensor(41), samples, 4))


def test_no_samples_give_no_draws() -> None:
    assert uniform(1, 2, torch.zeros(0, dtype=torch.int64), 4).shape == (0, 4)


def test_seeds_epochs_samples_and_draw_numbers_share_no_draws() -> None:
    samples = torch.arange(1000)
    base = uniform(1, 2, samples, 2)
    others = [uniform(2, 2, samples, 2), uniform(1, 3, samples, 2), uniform(1, 2, samples + 1, 2), base.flip(1)]
    assert [bool((base == other).any()) for other in others] == [False] * 4  # chance: 2,000 pairs of 2^24 values


def test_every_draw_number_is_uniform_over_256_bins() -> None:
    draws = uniform(0, 0, torch.arange(65_536), 8)
    for column in draws.unbind(1):
        counts = torch.bincount((column * 256).to(torch.int64), minlength=256).to(torch.float64)
        assert ((counts - 256) ** 2 / 256).sum() < 360  # chi-square, 255 degrees: mean 255, deviation 22.6


def test_the_lowest_kept_bits_are_uniform_too() -> None:
    bits = (uniform(0, 0, torch.arange(65_536), 4) * 2**24).to(torch.int64) % 256
    for column in bits.unbind(1):
        counts = torch.bincount(column, minlength=256).to(torch.float64)
        assert ((counts - 256) ** 2 / 256).sum() < 360


def test_neighbouring_draws_samples_epochs_and_seeds_are_independent() -> None:
    samples = torch.arange(65_536)
    base = uniform(0, 0, samples, 6)
    pairs = [(base[:, i], base[:, j]) for i in range(6) for j in range(i)]
    pairs += [
        (base[:-1, 0], base[1:, 0]),
        (base[:, 0], uniform(0, 1, samples, 1)[:, 0]),
        (base[:, 0], uniform(1, 0, samples, 1)[:, 0]),
    ]
    for first, second in pairs:
        joint = (first * 16).to(torch.int64) * 16 + (second * 16).to(torch.int64)
        counts = torch.bincount(joint, minlength=256).to(torch.float64)
        expected = len(first) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 370  # 18 tests: five deviations above the mean
