"""Where things lie: the shipped search spaces and the cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path, PurePath

import tune_cropshield
from tune_cropshield.config.closest import did_you_mean
from tune_cropshield.errors import ConfigError

MEASUREMENTS = "probes"  # in the cache: measurements of memory


def shipped_spaces() -> dict[str, Path]:
    """Returns the search spaces that come with the package, by file name."""
    package = Path(tune_cropshield.__file__).parent
    for folder in (package / "search_spaces", package.parent / "search_spaces"):  # installed, or a checkout
        if folder.is_dir():
            return {path.name: path for path in sorted(folder.glob("*.toml"))}
    return {}


def find_space(wanted: str) -> Path:
    """Returns the space file that `wanted` names: a path, or a shipped file's name."""
    shipped = shipped_spaces()
    wanted = os.path.expanduser(wanted)
    if os.path.isfile(wanted):  # unlike Path.is_file, says no to names that are too long
        return Path(wanted)
    found = shipped.get(wanted) or shipped.get(f"{wanted}.toml")
    if found is None:
        what = "is a folder, no search-space file" if os.path.isdir(wanted) else "no such search space"
        meant = did_you_mean(wanted, [path.stem for path in shipped.values()])
        raise ConfigError([f"--space {wanted}: {what}; {meant}shipped: {', '.join(shipped)}"])
    return found


def cache_dir() -> Path:
    """Returns where decoded photographs and measurements are kept between runs."""
    return user_cache_dir(sys.platform, Path.home(), os.environ)


def user_cache_dir(platform: str, home: Path, env: Mapping[str, str]) -> Path:
    """Returns where this user's caches belong; nothing is read or created here.

    platform as in `sys.platform`; `env` as in `os.environ`. A relative XDG_CACHE_HOME is ignored, as its standard
    demands.
    """
    if platform == "win32":
        local = env.get("LOCALAPPDATA")
        return (Path(local) if local else home / "AppData" / "Local") / "tune_cropshield"
    if platform == "darwin":
        return home / "Library" / "Caches" / "tune_cropshield"
    xdg = env.get("XDG_CACHE_HOME", "")
    return (Path(xdg) if PurePath(xdg).is_absolute() else home / ".cache") / "tune_cropshield"
