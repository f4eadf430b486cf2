"""Amounts that people type: memory and durations."""

from __future__ import annotations

import math
import re

from tune_cropshield.errors import ConfigError

MIB_PER_UNIT = {"mb": 1e6 / 2**20, "mib": 1.0, "gb": 1024.0, "gib": 1024.0}  # graphics cards say GB and mean GiB; MB is taken at its word
SECONDS_PER_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_memory(text: str) -> float:
    """Returns `text` ("8", "8GB", "7.5 GiB", "8000MB") in MiB; a bare number is GiB. Raises ConfigError listing the forms."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(mb|mib|gb|gib)?", text.strip().lower())
    mib = float(found[1]) * MIB_PER_UNIT[found[2] or "gb"] if found is not None else 0.0
    if not 0 < mib < math.inf:
        raise ConfigError([f"{text!r} is no amount of memory: write 8, 8GB, 8GiB, 8000MB or auto"])
    return mib


def parse_duration(text: str) -> float:
    """Returns `text` ("45s", "90m", "2h", "1h30m", "1d") in seconds. Raises ConfigError listing the forms."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text.strip().lower())
    seconds = sum(float(number) * SECONDS_PER_UNIT[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text.strip().lower() or not 0 < seconds < math.inf:
        raise ConfigError([f"{text!r} is no duration: write 45s, 90m, 2h or 1h30m"])
    return seconds


def describe_seconds(seconds: float) -> str:
    """Returns a duration for people: "8 s", "3 min 20 s", "2 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
