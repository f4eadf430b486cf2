"""Budgets as people write them: amounts, and laptops by name."""

from __future__ import annotations

from dataclasses import dataclass

from tune_cropshield.errors import ConfigError
from tune_cropshield.units import parse_memory

AUTO = "auto"


@dataclass(frozen=True)
class Amount:
    """A card of this size, and how much of it we may take, both in MiB; the same where a plain amount was given."""

    card_mib: float
    ours_mib: float


# What a card shows, less what is taken before we start: on Windows the display driver model keeps about 400 MiB of an 8 GB card (a user was
# left 7.60 GB of one: github.com/xyntetik, issue 105), a desktop with a browser takes another 350; of a small card Windows keeps less.
# Assumptions about a usual laptop: auto measures yours.
NAMED_BUDGETS = {
    "rtx4060-laptop": Amount(card_mib=8188.0, ours_mib=8188.0 - 750.0),
    "rtx3050-laptop": Amount(card_mib=4096.0, ours_mib=4096.0 - 500.0),
}


def parse_budget(text: str) -> Amount | None:
    """Returns the amount that `text` stands for, None for "auto". Raises ConfigError listing the forms for anything else."""
    name = text.strip().lower()
    if name == AUTO:
        return None
    if name in NAMED_BUDGETS:
        return NAMED_BUDGETS[name]
    try:
        mib = parse_memory(text)
    except ConfigError:
        raise ConfigError([f"{text!r} is no GPU memory budget: write 8, 8GB, 8GiB, 8000MB, auto or {', '.join(NAMED_BUDGETS)}"]) from None
    return Amount(mib, mib)
