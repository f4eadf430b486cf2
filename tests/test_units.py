"""Amounts that people type."""

from __future__ import annotations

import pytest

from tune_cropshield.config.units import describe_seconds, parse_duration, parse_memory, twice
from tune_cropshield.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("8", 8192),
        ("8GB", 8192),
        ("8 gib", 8192),
        ("7.5GiB", 7680),
        ("2048MiB", 2048),
        ("1048.576MB", 1000),
        (" 4GB ", 4096),
    ],
)
def test_memory_is_read_in_every_common_spelling(text: str, mib: float) -> None:
    assert parse_memory(text) == pytest.approx(mib, abs=1e-9)


@pytest.mark.parametrize("text", ["", "0", "0GB", "-8GB", "8TB", "GB", "8 GB 4", "nan", "inf", "9" * 400, "8,5GB"])
def test_what_is_no_amount_of_memory_is_told_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="is not an amount of memory: write 8, 8GB, 8GiB, 8000MB or auto"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90m", 5400), ("2h", 7200), ("1h30m", 5400), ("1d", 86400), ("1.5H", 5400)]
)
def test_a_duration_is_read_in_every_common_spelling(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_twice_a_duration_is_written_as_it_is_typed() -> None:
    given = ("2h", "45s", "90m", "20s", "12h", "1.5h", "0.7s", "1h30m")
    assert [twice(text) for text in given] == ["4h", "90s", "3h", "40s", "1d", "3h", "1.4s", "3h"]


@pytest.mark.parametrize("text", ["", "0s", "2", "-2h", "2 hours", "h", "1h 30m", "nan", "9" * 400 + "d", "2h!"])
def test_what_is_no_duration_is_told_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a duration: write 45s, 90m, 2h or 1h30m"):
        parse_duration(text)


def test_durations_are_written_for_people() -> None:
    assert [describe_seconds(seconds) for seconds in (0.4, 59, 60, 200, 7200, 7500)] == [
        "0 s",
        "59 s",
        "1 min",
        "3 min 20 s",
        "2 h",
        "2 h 5 min",
    ]
