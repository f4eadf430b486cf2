"""Counter-based randomness on the device: a draw is a hash of what it is for, not of what was drawn before.

A generator's next number depends on everything drawn earlier, and so on the batch size, the number of workers and the
device. Here the same sample in the same epoch gets the same numbers whatever batch, process or device asks, and a
resumed run needs no state.

B: samples asked for, D: draws per sample.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Odd, so that each multiplication permutes the 64-bit integers. DRAW_STEP is SplitMix64's increment (2^64 / golden
# ratio) and MIX its finaliser's pair (https://zimbry.blogspot.com/2011/09/better-bit-mixing-improving-on.html, Mix13);
# the others are the fractions of sqrt(2), sqrt(3) and sqrt(5) times 2^64, the last bit set.
DRAW_STEP = 0x9E3779B97F4A7C15
SAMPLE_STEP = 0x6A09E667F3BCC909
EPOCH_STEP = 0xBB67AE8584CAA73B
SEED_STEP = 0x3C6EF372FE94F82B
MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def uniform(seed: int, epoch: int | Tensor, samples_B: Tensor, draws: int) -> Tensor:
    """Returns (B, draws) float32 numbers in [0, 1), multiples of 2^-24; the same bits on every device.

    samples_B: int64 numbers of the samples in their data set; asking for more draws leaves the first ones unchanged.
    epoch: an int, or a 0-dim int64 tensor on the samples' device, which a captured CUDA graph can count up between
    replays. Never waits for the device, and copies nothing to it.
    """
    assert samples_B.dtype == torch.int64, samples_B.dtype
    start = seed * SEED_STEP
    if isinstance(epoch, Tensor):
        start_B = samples_B * _signed(SAMPLE_STEP) + (epoch * _signed(EPOCH_STEP) + _signed(start))
    else:
        start_B = samples_B * _signed(SAMPLE_STEP) + _signed(start + epoch * EPOCH_STEP)
    steps_D = torch.arange(draws, device=samples_B.device) * _signed(DRAW_STEP)
    bits_BD = start_B[:, None] + steps_D
    # SplitMix64's finaliser without its last xor-shift, which leaves the top 31 bits alone: we keep only the top 24, a
    # float32's precision.
    bits_BD.bitwise_xor_(_shifted_right(bits_BD, 30)).mul_(_signed(MIX[0]))
    bits_BD.bitwise_xor_(_shifted_right(bits_BD, 27)).mul_(_signed(MIX[1]))
    return _shifted_right(bits_BD, 40).to(torch.float32).mul_(2.0**-24)


def _shifted_right(bits: Tensor, places: int) -> Tensor:
    """Returns a logical shift: torch's own copies the sign bit of an int64, so the copies are masked off."""
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)


def _signed(number: int) -> int:
    """Returns the int64 with the same low 64 bits.

    torch multiplies and adds modulo 2^64, but takes only signed numbers.
    """
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
