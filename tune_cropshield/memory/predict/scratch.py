"""The scratch space that a CUDA kernel takes for a moment beside its results: how it follows from sizes.

It stands in a step's peak, and what it was cut from stays reserved. `kernels.py` says which operator takes which.

- A sum over rows, such as every bias's gradient, is split over the GPU's multiprocessors, which leave their parts in a
  buffer: exact, from PyTorch's ATen/native/cuda/Reduce.cuh.
- Copies in another layout or order: exact.
- The gradient of a convolution's weights is summed in parts: roughly, since cuDNN chooses among many kernels.
"""

from __future__ import annotations

from typing import NamedTuple

# Of an H100 or H200. Laptop GPUs have 20 to 60 multiprocessors of 1,536 threads, where sums take a fifth of this or
# less: there the estimate errs high.
MULTIPROCESSORS = 132
THREADS_OF_A_MULTIPROCESSOR = 2048
# Parts of a weight gradient, in fp32: a tile of the gradient for each multiprocessor, but not more than one whole
# gradient for so many pixels of the result. Set by the convolutions of one half of benchmarks/record_memory.py.
PIXELS_A_PART = 1024


class Scratch(NamedTuple):
    """What scratch space follows from. Every number is a linear function of the images in a micro-batch."""

    copied_bytes: int = 0
    sum_rows: int = 0
    sum_columns: int = 0
    gradient_pixels: int = 0  # of a convolution's result, over all images
    gradient_elements: int = 0  # weights of the convolution
    gradient_tile: int = 0  # elements of the gradient that one multiprocessor sums at a time

    def num_bytes(self) -> int:
        """Returns the scratch space in bytes."""
        parts = min(
            MULTIPROCESSORS * self.gradient_tile, self.gradient_elements * (self.gradient_pixels // PIXELS_A_PART)
        )
        return self.copied_bytes + row_sum_buffer(self.sum_rows, self.sum_columns) + 4 * parts


def scratch_at(batch: int, batches: tuple[int, int], small: Scratch, large: Scratch) -> Scratch:
    """Returns the scratch space at `batch` images on the line through that at each of `batches`."""
    share = (batch - batches[0]) / (batches[1] - batches[0])
    return Scratch(*(round(low + (high - low) * share) for low, high in zip(small, large, strict=True)))


def row_sum_buffer(rows: int, columns: int) -> int:
    """Returns the bytes in which CUDA's blocks leave their parts of a sum over the rows of (rows, columns).

    The steps are those of `setReduceConfig` and `ReduceConfig` in PyTorch 2.11's Reduce.cuh, for fp16, bf16 and fp32.
    """
    if min(rows, columns) < 1:
        return 0
    vector = next(size for size in (4, 2, 1) if columns % size == 0)
    most_threads = 512 // vector
    across, down = (min(_power_of_two(number), most_threads) for number in (columns // vector, rows))
    width = min(across, 32)
    height = min(down, most_threads // width)
    width = min(across, most_threads // height)
    if rows < min(16 * height, 256):
        return 0
    rows_a_thread = -(-rows // height)
    grid = -(-columns // (width * vector))
    blocks = MULTIPROCESSORS * (THREADS_OF_A_MULTIPROCESSOR // (width * height))
    if rows_a_thread < 256 or grid > blocks:
        return 0
    parts = max(min(-(-blocks // grid), -(-rows_a_thread // 16)), -(-rows_a_thread // 256))
    return 4 * columns * parts * width * vector if parts > 1 else 0


def _power_of_two(number: int) -> int:
    """Returns the largest power of two that is not above `number`."""
    return 1 << (number.bit_length() - 1)
