"""TOML in and out."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from tune_cropshield.errors import ConfigError


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the tables of a TOML file; raises ConfigError when it is missing, unreadable or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Windows' Notepad writes a byte-order mark
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read ({error.strerror})"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is no text file (not UTF-8)"]) from None
    except (ValueError, RecursionError) as error:
        # An int of thousands of digits and a thousand nested lists are no TOMLDecodeError.
        raise ConfigError([f"{path}: not valid TOML: {' '.join(str(error).split())}"]) from None


def without_none(values: Any) -> Any:
    """Returns `values` without the keys whose value is None, and with keys as strings.

    TOML has no null; a key that is left out means the default.
    """
    if isinstance(values, dict):
        return {str(key): without_none(value) for key, value in values.items() if value is not None}
    return values
