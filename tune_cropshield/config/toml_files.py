"""TOML in and out."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from tune_cropshield.errors import ConfigError

SINGLE_QUOTES = "write a path with backslashes between single quotes, as in"


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the tables of a TOML file; raises ConfigError when it is missing, unreadable or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' Notepad writes a byte-order mark
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not a text file (not UTF-8)"]) from None
    except (ValueError, RecursionError) as error:
        # An int of thousands of digits and a thousand nested lists are no TOMLDecodeError.
        what = " ".join(str(error).split())
        raise ConfigError([f"{path}: not valid TOML: {what}{_hint_on_backslashes(path, what)}"]) from None


def _hint_on_backslashes(path: Path, what: str) -> str:
    """Returns how to write a Windows path, where the faulty line has a backslash between double quotes."""
    place = re.search(r"line (\d+)", what)
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    line = lines[int(place[1]) - 1] if place is not None and int(place[1]) <= len(lines) else ""
    in_quotes = re.search(r'"([^"]*\\[^"]*)"', line)
    return f"; {SINGLE_QUOTES} '{in_quotes[1]}'" if in_quotes is not None else ""


def without_none(values: Any) -> Any:
    """Returns `values` without the keys whose value is None, and with keys as strings.

    TOML has no null; a key that is left out means the default.
    """
    if isinstance(values, dict):
        return {str(key): without_none(value) for key, value in values.items() if value is not None}
    return values
