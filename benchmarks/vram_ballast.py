"""Holds all of a GPU's memory but so much, until its standard input closes: a small card, as cuDNN and the driver see
it.

    python benchmarks/vram_ballast.py 8192

A cap on PyTorch's allocator alone would not do: cuDNN asks the driver how much is free and takes larger workspaces
where there is plenty (https://github.com/pytorch/pytorch/issues/69688). Plain allocations, no managed memory. Prints
one JSON line when it holds.
"""

from __future__ import annotations

import json
import sys

import torch

MIB = 2**20
PIECE = 2**30  # bytes; of many pieces none has to be contiguous


def main() -> None:
    """Allocates, reports, waits."""
    leave = float(sys.argv[1]) * MIB
    torch.zeros(1, device="cuda")  # the context comes first: it counts
    held = []
    while (excess := torch.cuda.mem_get_info()[0] - leave) >= 2 * MIB:
        held.append(torch.empty(int(min(excess, PIECE)) // (2 * MIB) * 2 * MIB, dtype=torch.uint8, device="cuda"))
    free, total = torch.cuda.mem_get_info()
    print(
        json.dumps(
            {"held_mib": sum(piece.numel() for piece in held) / MIB, "free_mib": free / MIB, "total_mib": total / MIB}
        ),
        flush=True,
    )
    sys.stdin.read()


if __name__ == "__main__":
    main()
