"""What lies in a folder of photographs and is not used: each file with its reason, in words and as a table."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from tune_cropshield.config.units import counted
from tune_cropshield.files import printable, write_text_atomically

TABLE = "left_out.csv"  # in the folder of a search or a training
COLUMNS = ("path", "class", "kind", "reason")
NAMED_AT_MOST = 5

# unreadable: looks like a photograph, but cannot be decoded. format: a picture of a format that is not read.
# no class: a photograph in no class folder. empty: a class folder without photographs. link: leads nowhere, or to what
# is read already. no file: a pipe, a socket or a device. system: hidden, or of an operating system or a file server.
# no row: a photograph that the table of labels does not name. excluded: by `exclude`. other: no photograph.
Kind = Literal["unreadable", "format", "no class", "empty", "link", "no file", "system", "no row", "excluded", "other"]


@dataclass(frozen=True)
class LeftOut:
    """One thing that is not used.

    path: relative to the folder, with forward slashes; a folder's ends with one. class_name: "" outside every class.
    """

    path: str
    kind: Kind
    reason: str
    class_name: str = ""

    @property
    def suffix(self) -> str:
        """What it is counted under: the suffix in lower case; the whole name where that says more."""
        path = PurePosixPath(self.path)
        if self.kind == "system":
            return "._*" if path.name.startswith("._") else path.name  # macOS keeps a ._NAME for every NAME
        return path.name if self.path.endswith("/") else path.suffix.lower() or path.name


def left_out_lines(left_out: Iterable[LeftOut]) -> list[str]:
    """Returns what was left out in a few lines, counted by suffix and class: first what a user may want to mend."""
    of_kind: dict[str, list[LeftOut]] = {}
    for thing in left_out:
        of_kind.setdefault(thing.kind, []).append(thing)
    unreadable = of_kind.get("unreadable", [])
    lines = [f"left out: {printable(thing.path)} ({thing.reason})" for thing in unreadable[:NAMED_AT_MOST]]
    if len(unreadable) > NAMED_AT_MOST:
        rest = unreadable[NAMED_AT_MOST:]
        lines.append(f"left out: {len(rest)} more that cannot be read{_by_class(rest)}")
    formats: dict[str, list[LeftOut]] = {}
    for thing in of_kind.get("format", []):
        formats.setdefault(thing.reason, []).append(thing)
    lines += [f"left out: {_by_class_and_suffix(things)} ({reason})" for reason, things in formats.items()]
    for kind, noun, what in (
        ("no class", "photograph", "in no class folder"),
        ("empty", "folder", "without photographs"),
        ("no file", "special file", "(a pipe, a socket or a device)"),
        ("no row", "photograph", "beside the others that no row of the table names"),
    ):
        if things := of_kind.get(kind):
            lines.append(f"left out: {counted(len(things), noun)} {what}: {_named([it.path for it in things])}")
    patterns: dict[str, list[LeftOut]] = {}
    for thing in of_kind.get("excluded", []):
        patterns.setdefault(thing.reason, []).append(thing)
    lines += [
        f"left out: {counted(len(things), 'photograph')} ({reason}): {_named([it.path for it in things])}"
        for reason, things in patterns.items()
    ]
    links: dict[str, list[LeftOut]] = {}
    for thing in of_kind.get("link", []):
        links.setdefault(thing.reason, []).append(thing)
    lines += [
        f"left out: {counted(len(things), 'link')} ({reason}): {_named([it.path for it in things])}"
        for reason, things in links.items()
    ]
    passed_over = [
        f"{_by_suffix(of_kind[kind])}{what}"
        for kind, what in (("other", ""), ("system", " (hidden, or made by the system or a file server)"))
        if kind in of_kind
    ]
    if passed_over:
        lines.append(f"ignored, not photographs: {'; '.join(passed_over)}")
    return lines


def write_left_out(folder: Path, left_out: Sequence[LeftOut]) -> None:
    """Writes left_out.csv: path, class, kind and reason of each. Raises DiskFull."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((thing.path, thing.class_name, thing.kind, thing.reason) for thing in left_out)
    write_text_atomically(folder / TABLE, text.getvalue())


def read_left_out(folder: Path) -> list[LeftOut]:
    """Returns what a search or a training in `folder` left out; nothing where it kept no left_out.csv."""
    try:
        text = (folder / TABLE).read_text(encoding="utf-8")
    except OSError:
        return []
    rows = csv.DictReader(io.StringIO(text))
    return [LeftOut(row["path"], row["kind"], row["reason"], row["class"]) for row in rows]  # type: ignore[arg-type]


def _by_class_and_suffix(things: Sequence[LeftOut]) -> str:
    suffixes: dict[str, list[LeftOut]] = {}
    for thing in things:
        suffixes.setdefault(thing.suffix, []).append(thing)
    return "; ".join(f"{len(of)} {printable(suffix)}{_by_class(of)}" for suffix, of in suffixes.items())


def _by_class(things: Sequence[LeftOut]) -> str:
    counts = Counter(thing.class_name or "no class" for thing in things)
    if len(counts) == 1:
        name = next(iter(counts))
        return f" in {name}" if name != "no class" else ""
    return f" in {_named([f'{name} {count}' for name, count in counts.most_common()])}"


def _by_suffix(things: Sequence[LeftOut]) -> str:
    return _named([f"{count} {suffix}" for suffix, count in Counter(thing.suffix for thing in things).most_common()])


def _named(things: Sequence[str]) -> str:
    more = len(things) - NAMED_AT_MOST
    return ", ".join(map(printable, things[:NAMED_AT_MOST])) + (f" and {more} more" if more > 0 else "")
