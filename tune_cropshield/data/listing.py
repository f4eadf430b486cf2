"""The files below a folder, by name and status: which are photographs, and why the others are not."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tune_cropshield.data.left_out import LeftOut
from tune_cropshield.data.names import is_of_the_system, why_no_photograph

READ_ALREADY = "to photographs that are read already"


@dataclass(frozen=True)
class ListedImage:
    """A photograph by its name and status alone: nothing of it was decoded."""

    path: str  # relative, forward slashes
    size: int  # bytes
    mtime_ns: int


@dataclass(frozen=True)
class Listing:
    """What was found below a folder."""

    photographs: list[ListedImage] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    folders: list[str] = field(
        default_factory=list
    )  # that were looked into, itself first; as the paths of photographs are


def photographs_below(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    """Returns the photographs below `folder` at any depth, sorted, and what else lies there, relative to it.

    Raises PermissionError where a folder may not be looked into.
    """
    listing = list_below(str(folder), ".")
    return sorted(folder / image.path for image in listing.photographs), listing.left_out


def list_below(folder: str, prefix: str, read: list[str] | None = None) -> Listing:
    """Returns what lies below `folder` at any depth; paths begin with `prefix` ("." for none).

    Links to folders are followed, but none into a folder that is read anyway, so that no photograph is there twice and
    no circle is walked. Raises PermissionError where a folder may not be looked into.

    Args:
        read: the real paths of all folders that are read, `folder` among them; links that are followed are added. Left
            out, `folder` alone is.
    """
    found = Listing()
    read = [os.path.realpath(folder)] if read is None else read
    waiting, links = deque([(folder, prefix)]), deque[tuple[str, str]]()
    while waiting or links:
        if not waiting:  # links come last: what lies in the folder itself keeps its own name
            folder, prefix = links.popleft()
            if not follow(folder, prefix, read, found):
                continue
        else:
            folder, prefix = waiting.popleft()
        found.folders.append(prefix)
        for entry in sorted_entries(folder):
            path = entry.name if prefix == "." else f"{prefix}/{entry.name}"
            if list_file(entry, path, found):
                (waiting if entry.is_dir(follow_symlinks=False) else links).append((entry.path, path))
    return found


def follow(link: str, path: str, read: list[str], found: Listing) -> bool:
    """Returns whether a linked folder is to be read, and adds it to what is `read`, or `path` to what is left out."""
    target = os.path.realpath(link)
    if any(_is_inside(target, other) or _is_inside(other, target) for other in read):
        found.left_out.append(LeftOut(f"{path}/", "link", READ_ALREADY))
        return False
    read.append(target)
    return True


def sorted_entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yields what lies in `folder` in the order of names, so that every machine sees the same."""
    with os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda entry: entry.name)


def list_file(entry: os.DirEntry[str], path: str, found: Listing) -> bool:
    """Adds a file, or what is of the system, to `found`; returns whether it is a folder to look into instead."""
    if is_of_the_system(entry.name):
        whole = f"{path}/" if entry.is_dir() else path
        found.left_out.append(LeftOut(whole, "system", "hidden, or of the system or a file server"))
        return False
    if entry.is_dir():
        return True
    if not entry.is_file():
        leads_nowhere = not os.path.exists(entry.path)
        found.left_out.append(
            LeftOut(path, "link", "to nothing")
            if leads_nowhere
            else LeftOut(path, "no file", "a pipe, a socket or a device")
        )
        return False
    no_photograph = why_no_photograph(entry.path)
    if no_photograph is not None:
        found.left_out.append(LeftOut(path, *no_photograph))
        return False
    try:
        status = entry.stat()
    except FileNotFoundError:  # deleted since it was listed: as if it had never been there
        return False
    found.photographs.append(ListedImage(path, status.st_size, status.st_mtime_ns))
    return False


def _is_inside(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(os.path.join(outer, ""))
