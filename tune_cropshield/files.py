"""Files that appear whole or not at all."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO

from tune_cropshield.errors import DiskFull, UserError

NO_UTF8 = re.compile(r"\\u(dc[89a-f][0-9a-f])")  # as `as_utf8` writes a byte
BREAKS_A_LINE = ("Cc", "Cs", "Zl", "Zp")  # Unicode's categories: controls, lone surrogates, line and paragraph ends


def as_utf8(text: str) -> str:
    """Returns `text` with each byte of a file's name that is no UTF-8 as its escape, such as \\udce9."""
    return text.encode("utf-8", "backslashreplace").decode()


def printable(name: str | Path) -> str:
    """Returns a name that a stranger gave a file or a folder as it can stand in a line.

    A line break, a terminal's escape sequence and a byte that is no UTF-8 are written as \\n, \\x1b and \\udce9.
    """
    return "".join(
        letter.encode("unicode_escape").decode() if unicodedata.category(letter) in BREAKS_A_LINE else letter
        for letter in str(name)
    )


def write_text_atomically(path: Path, text: str) -> None:
    """Writes `text` (UTF-8, `\\n` line ends) beside `path` and renames it: a reader or a kill never sees half of it.

    What is no UTF-8 is written as in `as_utf8`.
    """
    write_atomically(path, lambda file: file.write(as_utf8(text).encode()))


def write_atomically(path: Path, write: Callable[[IO[bytes]], object], keep_as: Path | None = None) -> None:
    """Calls `write` with a binary file beside `path`, flushes it to the disk and renames it to `path`.

    keep_as: what `path` held before is kept under this name.
    Raises DiskFull when the disk is full; the old file, if any, is then untouched and nothing half-written is left.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with raising_disk_full(path):
            with open(aside, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            if keep_as is not None:
                with suppress(FileNotFoundError):  # there was none, or somebody has just deleted it
                    os.replace(path, keep_as)
            os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a CSV file (UTF-8, `\\n` line ends), whole or not at all. Names that are no UTF-8 survive it, escaped."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text_atomically(path, text.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Returns the rows of a file that `write_csv` wrote, by the names in its header. Raises OSError, csv.Error.

    Names that are no UTF-8 are again what they were; earlier versions wrote them byte by byte.
    """
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        text = NO_UTF8.sub(lambda escape: chr(int(escape[1], 16)), file.read())
    return list(csv.DictReader(io.StringIO(text, newline="")))


def append_line(path: Path, line: str) -> None:
    """Appends `line`; raises DiskFull when the disk is full, and half of it never stays.

    Half a line that a power cut left before is removed.
    """
    with open(path, "ab") as file, raising_disk_full(path):
        end = file.tell()
        if end and not _ends_in_newline(path):
            end = path.read_bytes().rfind(b"\n") + 1
            file.truncate(end)
        try:
            file.write(line.encode() + b"\n")
            file.flush()
        except OSError:
            os.truncate(path, end)
            raise


def sync_tree(folder: Path) -> None:
    """Returns when all files in `folder`, whoever wrote them, and the names of them are on the disk.

    What a power cut comes after is then still there. Raises DiskFull where a write that was put off finds no space.
    """
    with raising_disk_full(folder):
        for path in (folder, *folder.rglob("*")):
            if path.is_dir():
                sync_names(path)
            elif path.is_file():
                with suppress(FileNotFoundError), open(path, "rb+") as file:  # Windows flushes only what may be written
                    os.fsync(file.fileno())


def sync_names(folder: Path) -> None:
    """Returns when the names of the files in `folder` are on the disk; Windows keeps them in order by itself."""
    if os.name == "nt":
        return
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _ends_in_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def is_leftover(path: Path) -> bool:
    """Tells whether `path` is what a process that was killed while it wrote left aside."""
    return path.name.startswith(".") and path.suffix == ".tmp" and path.is_file()


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left in `folder`. No other process may be writing there."""
    for path in folder.iterdir():
        if is_leftover(path):
            path.unlink(missing_ok=True)


@contextmanager
def raising_disk_full(path: Path) -> Iterator[None]:
    """Turns a full disk, in whatever form a library reports it, into DiskFull with the name of the file."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise DiskFull(
                f"no space left on the disk while writing {path}: free some, then continue with --resume"
            ) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Tells whether `error`, or what led to it, says that no space is left.

    torch.save and safetensors report it in errors of their own.
    """
    if isinstance(error, DiskFull):
        return False  # told already
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    if any(text in str(error) for text in ("No space left", "Disk quota exceeded", "file write failed")):
        return True
    before = error.__cause__ or error.__context__
    return before is not None and is_disk_full(before)


def check_can_be_made(folder: Path, flag: str) -> None:
    """Raises UserError when `folder` is no folder, is no UTF-8, or cannot be made or written to. Nothing is made."""
    place = folder.absolute()
    if (written := as_utf8(str(place))) != str(place):  # PyTorch and Ray take no other names
        raise UserError(f"{written} cannot be used: its name must be UTF-8; give another folder ({flag})")
    while not place.exists() and place != place.parent:
        place = place.parent
    why = (
        "is not a folder"
        if not place.is_dir()
        else ""
        if os.access(place, os.W_OK | os.X_OK)
        else "must not be written to"
    )
    if why:
        raise UserError(f"{folder} cannot be used: {place} {why}; give another folder ({flag})")


def check_apart(photographs: Sequence[str], cache: Path, out: Path) -> None:
    """Raises UserError when one of our folders lies among the photographs: its pictures would be taken for more.

    photographs: the folders that are looked through for them.
    """
    for place in photographs:
        inside = Path(place).resolve()
        for folder, remedy in (
            (out, "give a folder elsewhere (--out)"),
            (cache, "set XDG_CACHE_HOME to a folder elsewhere"),
        ):
            if folder.resolve().is_relative_to(inside):
                raise UserError(f"{folder} lies inside the folder of photographs, {place}: {remedy}")


def make_free_folder(folder: Path) -> Path:
    """Makes `folder`, or where it is taken the first free one of `folder`-2, `folder`-3, ..., and returns it.

    Two processes never get the same. Raises UserError when it cannot be made.
    """
    for number in count(1):
        place = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            place.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{place} cannot be made ({error.strerror}): give another folder (--out)") from None
        return place
    raise AssertionError("unreachable")
