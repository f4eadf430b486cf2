"""Amounts as people type and read them: memory, durations, numbers of things."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from tune_cropshield.errors import ConfigError

MIB = 2**20  # bytes

# Graphics cards say GB and mean GiB; MB is taken at its word.
MIB_PER_UNIT = {"mb": 1e6 / MIB, "mib": 1.0, "gb": 1024.0, "gib": 1024.0}
SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_memory(text: str) -> float:
    """Returns `text` ("8", "8GB", "7.5 GiB", "8000MB") in MiB; a bare number is GiB.

    Raises ConfigError listing the forms.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(mb|mib|gb|gib)?", text.strip().lower())
    mib = float(found[1]) * MIB_PER_UNIT[found[2] or "gb"] if found is not None else 0.0
    if not 0 < mib < math.inf:
        raise ConfigError([f"{text!r} is not an amount of memory: write 8, 8GB, 8GiB, 8000MB or auto"])
    return mib


def parse_duration(text: str) -> float:
    """Returns `text` ("45s", "90m", "2h", "1h30m", "1d") in seconds. Raises ConfigError listing the forms."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    seconds = sum(float(number) * SECONDS_PER_UNIT[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.strip().lower() or not 0 < seconds < math.inf:
        raise ConfigError([f"{text!r} is not a duration: write 45s, 90m, 2h or 1h30m"])
    return seconds


def twice(text: str) -> str:
    """Returns a duration that is twice as long, as it is typed: "4h" of "2h", "90s" of "45s"."""
    seconds = 2 * parse_duration(text)
    unit = next((unit for unit in ("d", "h", "m") if seconds % SECONDS_PER_UNIT[unit] == 0), "s")
    return f"{seconds / SECONDS_PER_UNIT[unit]:.6g}{unit}"


def describe_seconds(seconds: float) -> str:
    """Returns a duration for people: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def describe_bytes(count: float) -> str:
    """Returns an amount of disk for people: "12 MiB", "1.2 GiB"."""
    return f"{count / 1024 / MIB:.1f} GiB" if count >= 1024 * MIB else f"{math.ceil(count / MIB)} MiB"


def counted(count: int, noun: str) -> str:
    """Returns "1 trial", "2 trials"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


AUTO = "auto"


@dataclass(frozen=True)
class Amount:
    """A card of this size, and how much of it we may take, both in MiB; the same where a plain amount was given."""

    card_mib: float
    ours_mib: float


# What a card shows, less what is taken before we start: on Windows the display driver model keeps about 400 MiB of an 8
# GB card (a user was left 7.60 GB of one: github.com/xyntetik, issue 105), a desktop with a browser takes another 350;
# of a small card Windows keeps less. Assumptions about a usual laptop: auto measures yours.
NAMED_BUDGETS = {
    "rtx4060-laptop": Amount(card_mib=8188.0, ours_mib=8188.0 - 750.0),
    "rtx3050-laptop": Amount(card_mib=4096.0, ours_mib=4096.0 - 500.0),
}


def parse_budget(text: str) -> Amount | None:
    """Returns the amount that `text` stands for, None for "auto".

    Raises ConfigError listing the forms for anything else.
    """
    name = text.strip().lower()
    if name == AUTO:
        return None
    if name in NAMED_BUDGETS:
        return NAMED_BUDGETS[name]
    try:
        mib = parse_memory(text)
    except ConfigError:
        raise ConfigError(
            [f"{text!r} is not an amount of GPU memory: write 8, 8GB, 8GiB, 8000MB, auto or {', '.join(NAMED_BUDGETS)}"]
        ) from None
    return Amount(mib, mib)


def four_digits(share: float | None) -> str:
    """Returns an accuracy, or another share, with four digits, a dash for None and NaN. Only all is 1.0000."""
    if share is None or math.isnan(share):
        return "–"
    return f"{share:.4f}" if share == 1 or share < 0.99995 else "> 0.9999"
