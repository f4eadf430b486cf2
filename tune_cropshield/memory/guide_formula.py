"""The guide's formula for batch size and accumulation, kept so that `doctor` can show what it really prints."""

from __future__ import annotations


def guide_formula(
    target_batch: int,
    vram_gb: float,
    model_size_gb: float = 0.5,
    input_mb_per_sample: float = 2.0,
    reserve_gb: float = 2.0,
) -> tuple[int, int] | None:
    """Returns (micro_batch, accumulation) as the guide's formula computes them, or None where it dies of ZeroDivisionError.

    Three things are wrong with it. It counts the input image (as 2 MB; it has 0.6) and forgets the activations, which take 43 MiB an
    image for EfficientNet-B0: for its own example (64, 8 GB) it returns 2816 x 1, where the guide claims 16 x 4. It never caps the
    micro-batch at the target batch. And at 2.5 GB of VRAM it divides by zero; below, it would return a negative batch (None here too).
    """
    usable_mb = (vram_gb - model_size_gb - reserve_gb) * 1024
    micro_batch = int(usable_mb / input_mb_per_sample)
    if micro_batch <= 0:
        return None
    return micro_batch, max(1, target_batch // micro_batch)
