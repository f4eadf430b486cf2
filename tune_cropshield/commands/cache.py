"""`cache`: what is kept between runs, and its removal."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from tune_cropshield.config.units import counted, describe_bytes

if TYPE_CHECKING:
    from tune_cropshield.api.cache import CacheResult
    from tune_cropshield.data.cached import CachedStore

HELP = "show or clear what is kept between runs"
DESCRIPTION = (
    "Shows the cache folder: where it is, how large, which photographs it holds decoded, in which size, and when each "
    "were used last. cache clear removes it; what is needed again is made again. What a running search uses stays."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("action", nargs="?", choices=("clear",), metavar="clear", help="remove what is not in use")
    parser.add_argument("--older-than", metavar="30d", help="clear only what was not used for so long")
    parser.add_argument("--json", action="store_true", help="print one object, for programs")


def run(args: argparse.Namespace) -> int:
    """Prints what the cache holds, or what was removed from it."""
    from tune_cropshield.api.cache import cache
    from tune_cropshield.commands.tables import print_json

    clear = args.action == "clear"
    found = cache(clear=clear, older_than=args.older_than)
    if args.json:
        print_json(found.as_dict())
    elif clear:
        _print_removed(found)
    else:
        _print(found)
    return 0


def _print_removed(found: CacheResult) -> None:
    from tune_cropshield.commands.tables import console, print_lines

    lines = [f"removed: {_told(store)} ({describe_bytes(store.size_bytes)})" for store in found.removed]
    if found.removed_bytes:
        lines.append(f"removed in all, with measured memory plans and checksums: {describe_bytes(found.removed_bytes)}")
    else:
        lines.append(f"there was nothing to remove in {found.folder}")
    if found.kept:
        lines.append(f"kept: {_stores(found.kept)}, in use")
    lines.append(f"left in {found.folder}: {describe_bytes(found.size_bytes)}")
    print_lines(console(), lines)


def _print(found: CacheResult) -> None:
    from tune_cropshield.commands.tables import Kind, console, print_lines, print_table
    from tune_cropshield.outcome import words
    from tune_cropshield.shell import command

    where = console()
    print_lines(where, [f"{found.folder}: {describe_bytes(found.size_bytes)}"])
    columns: list[tuple[str, Kind]] = [
        ("photographs", "number"),
        ("of", "name"),
        ("image size", "whole"),
        ("disk", "number"),
        ("last used", "whole"),
    ]
    if found.stores:
        print_table(where, columns, [_row(store) for store in found.stores])
    rest = {
        f"{_stores(found.stores)}": sum(store.size_bytes for store in found.stores),
        words.counted(len(found.measurements), "measured memory plan"): found.measurements_bytes,
        "photographs that are being decoded, or were when a process was killed": found.half_built_bytes,
        "synthetic photographs, for searches without --data; cache clear leaves them": found.synthetic_bytes,
        "checksums of photographs": found.digests_bytes,
        "photographs that were taken out of Parquet files": found.extracted_bytes,
    }
    print_lines(where, [f"{what}: {describe_bytes(size)}" for what, size in rest.items() if size])
    if found.old:
        size = describe_bytes(sum(store.size_bytes for store in found.old))
        again = command("cache", "clear", "--older-than", "30d")
        print_lines(where, [f"{counted(len(found.old), 'store')} ({size}) not used for a month. Remove:  {again}"])


def _told(store: CachedStore) -> str:
    if store.folder is None:
        return "a store of another version, or a damaged one"
    return f"{counted(store.photographs or 0, 'photograph')} of {store.folder}, {store.image_size} px, {store.fit}"


def _stores(stores: tuple[CachedStore, ...]) -> str:
    return f"{counted(len(stores), 'store')} of decoded photographs"


def _row(store: CachedStore) -> tuple[object, ...]:
    if store.folder is None:
        told: tuple[object, ...] = ("–", "(of another version, or damaged)", "–")
    else:
        told = (store.photographs, store.folder, f"{store.image_size} px, {store.fit}")
    return (*told, describe_bytes(store.size_bytes), _when(store))


def _when(store: CachedStore) -> str:
    if store.in_use:
        return "in use"
    days = int((time.time() - store.last_used) // 86400)
    return "today" if days <= 0 else f"{counted(days, 'day')} ago" + (" (old)" if store.is_old() else "")
