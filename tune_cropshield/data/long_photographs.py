"""Photographs that are far from square, of which a crop to a square leaves much out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

LONG = 1.3  # long side / short side; nearly every camera's photographs are 4:3 or longer


def long_photographs_lines(sizes: Sequence[tuple[int, int]]) -> list[str]:
    """Returns a line where half of the photographs or more are long and are cropped; else none.

    sizes: width and height of each, in px.
    """
    ratio = statistics.median(max(size) / min(size) for size in sizes) if sizes else 1.0
    if ratio < LONG:
        return []
    return [
        f"half of the photographs are {ratio:.2f} times as long as wide, or longer: the centre crop leaves out "
        f'{1 - 1 / ratio:.0%} of them; in [data], fit = "pad" or "squash" shows them whole, and '
        'fit = {choice = ["crop", "pad", "squash"]} in [space] searches which is best'
    ]
