"""Standard output and error that may lose their reader: `| head`, a closed terminal. The work goes on without them."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # a pipe without a reader, a terminal that hung up, a closed one


class _Lasting(io.FileIO):
    """A file descriptor that takes everything; from its first failure on it goes nowhere.

    failure: what it was, where somebody might still read what was written before: a full disk, say.
    """

    failure: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Returns how much was written, all of it where nobody reads it."""
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in READER_GONE:
                self.failure = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return memoryview(data).nbytes


def outlast_readers() -> None:
    """Makes standard output and error take everything from now on, whether there is a reader or not.

    Where the process was started without one of them, it leads nowhere: a file opened later must not take its number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free: this one
    sys.stdout, sys.stderr = _lasting(sys.stdout, 1), _lasting(sys.stderr, 2)


def _lasting(stream: TextIO | None, number: int) -> TextIO:
    if stream is not None:
        stream.flush()
    at_once = number == 2 or bool(stream is not None and stream.line_buffering)
    raw = _Lasting(number, "wb", closefd=False)
    encoding = stream.encoding if stream is not None else "utf-8"
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding=encoding, line_buffering=at_once)


def failure_of_output() -> OSError | None:
    """Writes what standard output still holds, and returns why some of it could not be written.

    None where all was, or where nobody wanted to read it any more.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Lasting) else None
